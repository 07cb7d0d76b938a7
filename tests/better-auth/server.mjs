// A real Better Auth server on a loopback port, with e-mail and password, bearer and JWT. Its
// database is in memory: better-sqlite3 would have to be compiled, which takes two minutes and a
// compiler on the machine.
//   node server.mjs [--alg=EdDSA] [--lean] [--rotation=SECONDS] [--expiry=15m] [--issuer=URL]
//                   [--audience=NAME] [--port=0] [--until-stdin-closes]
// It prints `listening on ADDRESS`. The address is the issuer and the audience by default.
//
// GET  /control          the number of requests by path
// POST /control/jwks     {"mode", "body"?}: sets how the key set is served, see `serveKeys`
// POST /control/rotate   all keys expire now, so the next token makes another
// POST /control/verify   {"email"}: its user has confirmed the address
// GET  /control/key      {"alg", "kid"} of the current key
// POST /control/sign     {"header", "claims", "secret"?}: signs exactly these with the current key,
//                        or for HS256 with the secret
import { createHmac, createPrivateKey, constants, sign } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { toNodeHandler } from 'better-auth/node';
import { bearer, jwt } from 'better-auth/plugins';

const { values: options } = parseArgs({
  options: {
    alg: { type: 'string', default: 'EdDSA' },
    lean: { type: 'boolean', default: false },
    rotation: { type: 'string' },
    expiry: { type: 'string', default: '15m' },
    issuer: { type: 'string' },
    audience: { type: 'string' },
    port: { type: 'string', default: '0' },
    'until-stdin-closes': { type: 'boolean', default: false },
  },
});

const KEYS = '/api/auth/jwks';
const OCT = { kty: 'oct', kid: 'oct', k: Buffer.alloc(32, 'k').toString('base64url') };

const server = createServer(answer);
server.listen(Number(options.port), '127.0.0.1');
await once(server, 'listening');
const address = `http://127.0.0.1:${server.address().port}`;

const database = { user: [], session: [], account: [], verification: [], jwks: [] };
const auth = betterAuth({
  baseURL: address,
  secret: 'a secret of the issuer for tests only',
  database: memoryAdapter(database),
  emailAndPassword: { enabled: true },
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
  plugins: [
    bearer(),
    jwt({
      jwks: {
        keyPairConfig: { alg: options.alg, ...(options.alg === 'EdDSA' && { crv: 'Ed25519' }) },
        // `sign` below reads the key.
        disablePrivateKeyEncryption: true,
        ...(options.rotation && { rotationInterval: Number(options.rotation) }),
      },
      jwt: {
        expirationTime: options.expiry,
        ...(options.issuer && { issuer: options.issuer }),
        ...(options.audience && { audience: options.audience }),
        ...(options.lean && { definePayload: () => ({}) }),
      },
    }),
  ],
});
const handle = toNodeHandler(auth);
// Makes the first key.
await auth.api.getJwks();

const requests = {};
let keys = { mode: 'normal' };

/** The newest row, as Better Auth chooses it. */
function currentKey() {
  return database.jwks.toSorted((one, other) => other.createdAt - one.createdAt)[0];
}

function signature(text, { alg: used, secret }) {
  if (used === 'none') return Buffer.alloc(0);
  if (used === 'HS256') {
    return createHmac('sha256', Buffer.from(secret, 'base64url')).update(text).digest();
  }
  const { alg, privateKey } = currentKey();
  const key = {
    key: createPrivateKey({ key: JSON.parse(privateKey), format: 'jwk' }),
    dsaEncoding: 'ieee-p1363',
    ...(alg.startsWith('PS') && {
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
    }),
  };
  return sign(alg === 'EdDSA' ? null : `sha${alg.slice(2)}`, Buffer.from(text), key);
}

function signed({ header, claims, secret }) {
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const text = `${encode(header)}.${encode(claims)}`;
  return `${text}.${signature(text, { alg: header.alg, secret }).toString('base64url')}`;
}

async function serveKeys(response) {
  const set = await auth.api.getJwks();
  const json = (status, body, headers) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    return response.end(JSON.stringify(body));
  };
  switch (keys.mode) {
    case 'normal': return json(200, set);
    case 'given': return json(200, keys.body);
    case 'empty': return json(200, { keys: [] });
    case 'error': return json(500, {});
    case 'html':
      response.writeHead(200, { 'content-type': 'text/html' });
      return response.end('<!doctype html><title>Maintenance</title>');
    // A published HMAC key, so that everybody has its bytes.
    case 'oct': return json(200, { keys: [...set.keys, OCT] });
    // To a good set: a client that follows it gets its keys.
    case 'redirect': return json(302, {}, { location: `${address}/control/keys` });
    // A good set of 300 KiB and more.
    case 'huge': return json(200, { ...set, filler: ' '.repeat(300 << 10) });
    case 'slow':
      response.writeHead(200, { 'content-type': 'application/json' });
      return response.write('{');
    case 'cut':
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '4096' });
      return response.write('{"keys":[', () => response.destroy());
    default: throw new Error(`no mode ${keys.mode}`);
  }
}

const controls = {
  'GET /control': () => requests,
  'GET /control/key': () => ({ alg: currentKey().alg, kid: currentKey().id }),
  'GET /control/keys': () => auth.api.getJwks(),
  'POST /control/jwks': (body) => { keys = body; },
  'POST /control/rotate': () => {
    for (const row of database.jwks) row.expiresAt ??= new Date(Date.now() - 1);
  },
  'POST /control/sign': (body) => ({ token: signed(body) }),
  'POST /control/verify': ({ email }) => {
    database.user.find((user) => user.email === email).emailVerified = true;
  },
};

async function answer(request, response) {
  const { pathname } = new URL(request.url, address);
  const control = controls[`${request.method} ${pathname}`];
  if (control) {
    const body = Buffer.concat(await request.toArray()).toString();
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify(await control(body && JSON.parse(body)) ?? {}));
  }
  requests[pathname] = (requests[pathname] ?? 0) + 1;
  return pathname === KEYS ? serveKeys(response) : handle(request, response);
}

if (options['until-stdin-closes']) process.stdin.resume().on('end', () => process.exit());
console.log(`listening on ${address}`);
