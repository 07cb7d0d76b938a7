// Uses examples/better-auth (BASE_URL) in Chromium, as a person does: signs up, adds a todo, comes
// again, signs out.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

const base = process.env.BASE_URL ?? assert.fail("BASE_URL is not set");
const api = process.env.TODO_URL ?? assert.fail("TODO_URL is not set");
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const account = { email: "ada@example.com", password: "Correct1horse" };

let browser;

before(async () => {
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  browser = await chromium.launch({ executablePath, args: [...args, "--disable-gpu"] });
});

after(() => browser?.close());

/** Fills the form and presses a button of it. */
async function enter(page, fields, button) {
  for (const [label, value] of Object.entries(fields)) await page.getByLabel(label).fill(value);
  await page.getByRole("button", { name: button }).click();
}

test("todos are kept with the tokens of Better Auth", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  const tokens = new Set();
  page.on("request", (request) => {
    if (request.method() !== "OPTIONS" && request.url().startsWith(api)) {
      tokens.add(request.headers().authorization);
    }
  });

  await page.goto(base);
  await enter(page, { Email: account.email, Password: account.password }, "Sign up");
  await enter(page, { Title: "buy milk" }, "Add");
  await page.getByRole("listitem").filter({ hasText: "buy milk" }).waitFor();
  assert.equal(tokens.size, 1, "one token for all requests");

  await page.reload();
  await page.getByRole("listitem").filter({ hasText: "buy milk" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  // Ended at the API, too.
  for (const authorization of [...tokens].slice(-1)) {
    const answer = await fetch(`${api}/api/auth/me`, { headers: { authorization } });
    assert.equal(answer.status, 401);
  }

  await enter(page, { Email: account.email, Password: "Wrong1password" }, "Sign in");
  await page.getByRole("alert").filter({ hasText: /invalid/i }).waitFor();
  await enter(page, { Email: account.email, Password: account.password }, "Sign in");
  await page.getByRole("listitem").filter({ hasText: "buy milk" }).waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});
