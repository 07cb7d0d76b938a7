// A stand-in for GitHub on a loopback port: the endpoints and answers that a sign-in uses.
//   node github.mjs [--client=todo] [--secret=…] [--port=0]
// It prints `listening on ADDRESS`. The API is at that address and below /api/v3.
//
// GET /login/oauth/authorize redirects at once with the code of the account `login`, a parameter
// that GitHub has too ("ada" by default). POST /control replaces its faults, as one JSON object:
//   accounts  by login: {"id", "name", "emails": [{"email", "primary", "verified"}]}
//   down      the paths that fail with 500; [""] is all of them
// GET /control returns the number of requests by path.
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    client: { type: 'string', default: 'todo' },
    secret: { type: 'string', default: 'a secret of the client for tests only' },
    port: { type: 'string', default: '0' },
  },
});

const requests = {};
const codes = new Map();
const tokens = new Map();
let control = { accounts: {}, down: [] };

/** The account of a login: by default with a verified primary address. */
function account(login) {
  const id = createHash('sha256').update(login).digest().readUInt32BE(0);
  return {
    id,
    login,
    name: 'Ada Lovelace',
    email: null,
    emails: [
      { email: `${login}@users.noreply.example.com`, primary: false, verified: true },
      { email: `${login}@example.com`, primary: true, verified: true },
    ],
    ...control.accounts[login],
  };
}

function send(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

function authorize(url, response) {
  const query = url.searchParams;
  if (query.get('client_id') !== options.client) return send(response, 404, {});
  const code = randomBytes(10).toString('hex');
  const redirect = query.get('redirect_uri');
  codes.set(code, {
    login: query.get('login') ?? 'ada',
    challenge: query.get('code_challenge'),
    redirect,
  });
  const to = new URL(redirect);
  to.searchParams.set('code', code);
  to.searchParams.set('state', query.get('state') ?? '');
  response.writeHead(302, { location: to.href });
  return response.end();
}

/** As GitHub, it answers errors with the status 200. */
async function exchange(request, response) {
  const form = new URLSearchParams(Buffer.concat(await request.toArray()).toString());
  if (request.headers.accept !== 'application/json') {
    response.writeHead(200, { 'content-type': 'application/x-www-form-urlencoded' });
    return response.end('error=this+stand-in+answers+JSON+only');
  }
  const basic = Buffer.from((request.headers.authorization ?? '').slice(6), 'base64').toString();
  const [user, password] = basic.split(':').map(decodeURIComponent);
  const id = form.get('client_id') ?? user;
  const secret = form.get('client_secret') ?? password;
  if (id !== options.client || secret !== options.secret) {
    return send(response, 200, { error: 'incorrect_client_credentials' });
  }
  const code = codes.get(form.get('code'));
  codes.delete(form.get('code'));
  const verifier = form.get('code_verifier') ?? '';
  const challenge = createHash('sha256').update(verifier).digest('base64url');
  const redirect = form.get('redirect_uri') ?? code?.redirect;
  if (!code || redirect !== code.redirect || (code.challenge && code.challenge !== challenge)) {
    return send(response, 200, { error: 'bad_verification_code' });
  }
  const token = `gho_${randomBytes(18).toString('hex')}`;
  tokens.set(token, code.login);
  return send(response, 200, { access_token: token, token_type: 'bearer', scope: 'user:email' });
}

function api(path, request, response) {
  if (!request.headers['user-agent']) return send(response, 403, { message: 'no User-Agent' });
  const token = (request.headers.authorization ?? '').replace(/^(Bearer|token) /i, '');
  if (!tokens.has(token)) return send(response, 401, { message: 'Bad credentials' });
  const { emails, ...user } = account(tokens.get(token));
  return send(response, 200, path === '/user' ? user : emails);
}

async function answer(request, response) {
  const url = new URL(request.url, 'http://127.0.0.1');
  const path = url.pathname.replace(/^\/api\/v3/, '');
  if (path === '/control') {
    if (request.method === 'POST') {
      const set = JSON.parse(Buffer.concat(await request.toArray()).toString());
      control = { accounts: {}, down: [], ...set };
    }
    return send(response, 200, requests);
  }
  requests[path] = (requests[path] ?? 0) + 1;
  if (control.down.some((down) => path.startsWith(down))) return send(response, 500, {});
  const route = `${request.method} ${path}`;
  if (route === 'GET /login/oauth/authorize') return authorize(url, response);
  if (route === 'POST /login/oauth/access_token') return exchange(request, response);
  if (route === 'GET /user' || route === 'GET /user/emails') return api(path, request, response);
  return send(response, 404, {});
}

const server = createServer(answer);
server.listen(Number(options.port), '127.0.0.1');
await once(server, 'listening');
console.log(`listening on http://127.0.0.1:${server.address().port}`);
