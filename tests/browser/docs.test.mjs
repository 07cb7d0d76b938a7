// Tests the documentation pages of a running todo-server (BASE_URL) in Chromium. Every request,
// console message and policy violation is recorded, and an unexpected one fails its test. With
// SHOTS=<folder> a screenshot of each page is saved there.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";
import { gunzipSync } from "node:zlib";

import { chromium } from "playwright-core";

const base = new URL(process.env.BASE_URL ?? assert.fail("BASE_URL is not set"));
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

let browser;
let document;
let operations;

before(async () => {
  document = await (await fetch(new URL("/openapi.json", base))).json();
  operations = Object.entries(document.paths).flatMap(([path, item]) =>
    methods.filter((method) => item[method]).map((method) => ({ path, ...item[method] })),
  );
  browser = await chromium.launch({
    executablePath,
    args: [
      ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
});

after(() => browser?.close());

/**
 * Opens a page below `root` in a new context and runs `act` on it. Fails on errors, warnings and
 * requests to other origins.
 */
async function visit(route, act, root = base) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 1000 } });
  const page = await context.newPage();
  const origins = new Set();
  const faults = [];
  context.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (protocol !== "data:") origins.add(origin);
  });
  page.on("requestfailed", (request) => faults.push(`request failed: ${request.url()}`));
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`);
  });
  await page.exposeFunction("recordViolation", (text) => faults.push(`policy: ${text}`));
  await page.addInitScript(() =>
    addEventListener("securitypolicyviolation", (event) =>
      recordViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`),
    ),
  );
  try {
    const response = await page.goto(new URL(`.${route}`, root).href);
    assert.equal(response.status(), 200);
    await act(page);
    if (process.env.SHOTS) {
      await page.screenshot({ path: path.join(process.env.SHOTS, `${route.slice(1)}.png`) });
    }
    assert.deepEqual(faults, []);
    assert.deepEqual([...origins], [root.origin]);
  } finally {
    await context.close();
  }
}

async function signUp() {
  const email = `browser-${randomUUID()}@example.com`;
  const response = await fetch(new URL("/api/auth/signup", base), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email, password: "Passw0rd-x", name: "Browser" }),
  });
  assert.equal(response.status, 201);
  return { email, token: (await response.json()).token };
}

/**
 * Runs `act` on a proxy that removes the prefix `/todo`, as nginx does with
 * `location /todo/ { proxy_pass http://app/; }`.
 */
async function behindAStrippingProxy(act) {
  const prefix = "/todo/";
  const proxy = http.createServer((request, response) => {
    if (!request.url.startsWith(prefix)) {
      response.writeHead(404).end();
      return;
    }
    const target = new URL(request.url.slice(prefix.length - 1), base);
    const { method, headers } = request;
    const passed = http.request(target, { method, headers, agent: false }, (upstream) => {
      response.writeHead(upstream.statusCode, upstream.headers);
      upstream.pipe(response);
    });
    passed.on("error", () => response.destroy());
    request.pipe(passed);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  try {
    await act(new URL(`http://127.0.0.1:${proxy.address().port}${prefix}`));
  } finally {
    proxy.closeAllConnections();
    proxy.close();
  }
}

/** Sends one request and returns the raw response: no redirects, no decompression. */
function send(method, route, headers = {}) {
  return new Promise((resolve, reject) => {
    http
      .request(new URL(route, base), { method, headers, agent: false }, async (response) => {
        const chunks = await response.toArray();
        resolve({
          status: response.statusCode,
          headers: response.headers,
          body: Buffer.concat(chunks),
        });
      })
      .on("error", reject)
      .end();
  });
}

test("Swagger UI shows every operation, and sends the token entered", async () => {
  const { email, token } = await signUp();
  await visit("/docs", async (page) => {
    await page.getByRole("heading", { name: document.info.title }).waitFor();
    assert.equal(await page.locator(".opblock").count(), operations.length);

    await page.getByRole("button", { name: "Authorize" }).click();
    const dialog = page.locator(".dialog-ux");
    await dialog.locator("input").fill(token);
    await dialog.getByRole("button", { name: "Apply credentials" }).click();
    await dialog.getByRole("button", { name: "Close" }).first().click();

    const operation = page.locator(".opblock-get", {
      has: page.locator('[data-path="/api/auth/me"]'),
    });
    await operation.locator(".opblock-summary-control").click();
    await operation.getByRole("button", { name: "Try it out" }).click();
    const responded = page.waitForResponse(new URL("/api/auth/me", base).href);
    await operation.getByRole("button", { name: "Execute" }).click();

    const response = await responded;
    assert.equal(await response.request().headerValue("authorization"), `Bearer ${token}`);
    assert.equal(response.status(), 200);
    assert.equal((await response.json()).email, email);
    const shown = operation.locator(".live-responses-table .response").first();
    assert.equal((await shown.locator(".response-col_status").innerText()).trim(), "200");
    await shown.getByText(email).waitFor();

    const kept = await page.evaluate(() =>
      JSON.stringify([{ ...localStorage }, { ...sessionStorage }]),
    );
    assert.ok(!kept.includes(token), "the token is in the browser's storage");
  });
});

test("ReDoc shows every operation, and finds one", async () => {
  await visit("/redoc", async (page) => {
    await page.getByRole("heading", { name: document.info.title }).waitFor();
    for (const { path, summary } of operations) {
      await page.getByRole("heading", { name: summary }).first().waitFor();
      assert.ok((await page.getByText(path, { exact: true }).count()) > 0, path);
    }
    const { summary } = operations[0];
    await page.getByPlaceholder("Search...").fill(summary);
    await page.locator('[data-role="search:results"]').getByText(summary).first().waitFor();
  });
});

test("both pages work behind a proxy that removes a path prefix", async () => {
  const { email, token } = await signUp();
  await behindAStrippingProxy(async (root) => {
    const useDocs = async (page) => {
      await page.getByRole("heading", { name: document.info.title }).waitFor();
      assert.equal(await page.locator(".opblock").count(), operations.length);
      await page.getByRole("button", { name: "Authorize" }).click();
      const dialog = page.locator(".dialog-ux");
      await dialog.locator("input").fill(token);
      await dialog.getByRole("button", { name: "Apply credentials" }).click();
      await dialog.getByRole("button", { name: "Close" }).first().click();
      const operation = page.locator(".opblock-get", {
        has: page.locator('[data-path="/api/auth/me"]'),
      });
      await operation.locator(".opblock-summary-control").click();
      await operation.getByRole("button", { name: "Try it out" }).click();
      const responded = page.waitForResponse(new URL("./api/auth/me", root).href);
      await operation.getByRole("button", { name: "Execute" }).click();
      assert.equal((await (await responded).json()).email, email);
    };
    await visit("/docs", useDocs, root);
    const useRedoc = (page) =>
      page.getByRole("heading", { name: operations[0].summary }).first().waitFor();
    await visit("/redoc", useRedoc, root);
  });
});

test("the pages and their files reference no other host, and have the expected headers", async () => {
  for (const page of ["/docs", "/redoc"]) {
    const html = await send("GET", page);
    assert.match(html.headers["content-type"], /^text\/html/);
    assert.match(html.headers["content-security-policy"], /^default-src 'none';/);
    const sources = html.headers["content-security-policy"]
      .split(";")
      .flatMap((directive) => directive.trim().split(" ").slice(1));
    for (const source of sources) {
      assert.match(source, /^('none'|'self'|'sha256-[\w+/=]+'|data:|blob:)$/);
    }

    const links = html.body.toString().matchAll(/(?:src|href)="([^"]+)"/g);
    const resolved = (url) => new URL(url, new URL(page, base));
    const named = [...links].map(([, url]) => url);
    for (const url of named.filter((url) => !url.startsWith("data:"))) {
      // Relative, so that it works behind a proxy that removes a path prefix.
      assert.match(url, /^[a-z]/);
      assert.equal(resolved(url).origin, base.origin, url);
    }
    assert.ok(named.length > 3);
    const files = named.map((url) => resolved(url).pathname);
    for (const route of [page, ...files.filter((path) => path.startsWith(`${page}/`))]) {
      const plain = await send("GET", route);
      assert.equal(plain.status, 200, route);
      assert.equal(plain.headers["content-encoding"], undefined, route);
      assert.equal(plain.headers["content-length"], String(plain.body.length), route);
      assert.equal(plain.headers["x-content-type-options"], "nosniff", route);
      assert.equal(plain.headers["x-frame-options"], "DENY", route);
      assert.match(plain.headers["content-security-policy"], /^default-src 'none';/, route);

      const packed = await send("GET", route, { "accept-encoding": "gzip" });
      if (packed.headers["content-encoding"] === "gzip") {
        assert.deepEqual(gunzipSync(packed.body), plain.body, route);
      } else {
        assert.deepEqual(packed.body, plain.body, route);
      }

      const head = await send("HEAD", route);
      assert.equal(head.status, 200, route);
      assert.equal(head.headers["content-length"], plain.headers["content-length"], route);
      assert.equal(head.body.length, 0, route);

      const again = await send("GET", route, { "if-none-match": plain.headers.etag });
      assert.equal(again.status, 304, route);
      assert.equal(again.headers.etag, plain.headers.etag, route);
      assert.equal(again.body.length, 0, route);
    }
    const posted = await send("POST", page);
    assert.equal(posted.status, 405);
    assert.match(posted.headers.allow, /\bGET\b.*\bHEAD\b/);
    assert.equal((await send("GET", `${page}/absent.js`)).status, 404);
  }
});
