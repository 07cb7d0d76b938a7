// A token is kept in this page only: lost on reload, and never in the browser's storage.
const page = document.getElementById("page");
const address = new URL(page.dataset.document, location.href);

// Requests go to this page's origin, regardless of the document's `servers`: a proxy may have
// stripped a prefix, and the page's policy allows no other origin. The document lists its own path;
// the part of its URL before that path is the prefix of all paths.
function besideThisPage(response) {
  if (response.url !== address.href || !response.ok) return response;
  const described = JSON.parse(response.text);
  const own = Object.keys(described.paths).find(
    (path) => path.endsWith("/openapi.json") && address.pathname.endsWith(path),
  );
  if (own) {
    const root = address.pathname.slice(0, -own.length);
    described.servers = [{ url: root || "/" }];
    response.text = JSON.stringify(described);
  }
  return response;
}

SwaggerUIBundle({
  domNode: page,
  url: address.href,
  responseInterceptor: besideThisPage,
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
});
