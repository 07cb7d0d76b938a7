// A Better Auth server, and the page of an application that keeps its todos in the todo API.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';

import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { toNodeHandler } from 'better-auth/node';
import { jwt } from 'better-auth/plugins';

const { PORT = '4000', HOST = 'localhost', TODO_URL = 'http://localhost:8000' } = process.env;
// AUTH_ISSUER of the todo API.
const baseURL = `http://${HOST}:${PORT}`;

const auth = betterAuth({
  baseURL,
  secret: process.env.BETTER_AUTH_SECRET ?? 'a secret for this example only, not for production',
  // Forgets its users, and its keys, when it stops: take a database.
  database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
  emailAndPassword: { enabled: true },
  telemetry: { enabled: false },
  plugins: [
    jwt({
      jwt: {
        // AUTH_AUDIENCE of the todo API: tokens for it are good for nothing else.
        audience: 'todo',
        // What the API uses. By default, tokens have the whole row of the user.
        definePayload: ({ user: { name, email, emailVerified } }) => {
          return { name, email, emailVerified };
        },
      },
    }),
  ],
});

const handle = toNodeHandler(auth);

createServer(async (request, response) => {
  const path = new URL(request.url, baseURL).pathname;
  if (path.startsWith('/api/auth/')) return handle(request, response);
  if (path === '/settings.json') {
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify({ api: TODO_URL }));
  }
  if (path === '/') {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    return response.end(await readFile(new URL('public/index.html', import.meta.url)));
  }
  return response.writeHead(404).end();
}).listen(Number(PORT), HOST, () => console.log(`listening on ${baseURL}`));
