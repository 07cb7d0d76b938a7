// A real OpenID Connect provider, oidc-provider, on a loopback port, with one client. Its own login
// and consent pages accept any name, which becomes the subject.
//   node server.mjs --redirect=URL… [--client=todo] [--secret=…] [--port=0]
// It prints `listening on ADDRESS`; the address is the issuer.
//
// The path /control sets the faults of the next answers, as one JSON object:
//   accounts  by subject: the claims email, email_verified and name
//   claims    claims that replace those of the ID token (null removes one)
//   header    members that replace those of its header
//   userinfo  true: e-mail and name only at the userinfo endpoint (OpenID Connect Core, 5.4)
//   down      the paths that fail, for instance ["/token", "/jwks"]; [""] is all of them
//   how       error (500, the default), cut, slow (an answer that never ends)
// GET /control returns the number of requests by path.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import * as jose from 'jose';
import Provider from 'oidc-provider';

const { values: options } = parseArgs({
  options: {
    redirect: { type: 'string', multiple: true, default: [] },
    client: { type: 'string', default: 'todo' },
    secret: { type: 'string', default: 'a secret of the client for tests only' },
    port: { type: 'string', default: '0' },
  },
});

const requests = {};
const control = {};

function reset(to) {
  for (const name of Object.keys(control)) delete control[name];
  Object.assign(control, { accounts: {}, claims: {}, header: {}, down: [], how: 'error' }, to);
}
reset({});

const pair = await jose.generateKeyPair('RS256', { extractable: true });
const jwk = { ...await jose.exportJWK(pair.privateKey), kid: 'one', alg: 'RS256', use: 'sig' };

const server = createServer(answer);
server.listen(Number(options.port), '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [{
    client_id: options.client,
    client_secret: options.secret,
    redirect_uris: options.redirect,
    response_types: ['code'],
    grant_types: ['authorization_code'],
  }],
  jwks: { keys: [jwk] },
  cookies: { keys: ['a key of the cookies for tests only'] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: false,
  findAccount: (_, sub) => ({
    accountId: sub,
    claims: (use) => ({
      sub,
      ...(use === 'id_token' && control.userinfo ? {} : {
        email: `${sub}@example.com`,
        email_verified: true,
        name: 'Ada Lovelace',
        ...control.accounts[sub],
      }),
    }),
  }),
});

// Replaces parts of the ID token, which is signed again with the same key.
provider.use(async (context, next) => {
  await next();
  const idToken = context.path === '/token' && context.body?.id_token;
  const spoilt = Object.keys({ ...control.claims, ...control.header }).length > 0;
  if (!idToken || !spoilt) return;
  const claims = { ...jose.decodeJwt(idToken), ...control.claims };
  for (const name of Object.keys(claims)) if (claims[name] === null) delete claims[name];
  const header = { ...jose.decodeProtectedHeader(idToken), ...control.header };
  const signer = new jose.SignJWT(claims).setProtectedHeader(header);
  context.body = { ...context.body, id_token: await signer.sign(pair.privateKey) };
});

const handle = provider.callback();

async function answer(request, response) {
  const path = new URL(request.url, issuer).pathname;
  if (path === '/control') {
    if (request.method === 'POST') {
      const chunks = await request.toArray();
      reset(JSON.parse(Buffer.concat(chunks).toString()));
    }
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify(requests));
  }
  requests[path] = (requests[path] ?? 0) + 1;
  if (control.down.some((down) => path.startsWith(down))) {
    if (control.how === 'cut') return request.socket.destroy();
    response.writeHead(control.how === 'slow' ? 200 : 500, { 'content-type': 'application/json' });
    return control.how === 'slow' ? response.write('{') : response.end('{}');
  }
  return handle(request, response);
}

console.log(`listening on ${issuer}`);
