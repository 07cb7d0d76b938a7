// A given token lives in this page alone: it is gone on reload, and never in the browser's storage.
const page = document.getElementById("page");
const address = new URL(page.dataset.document, location.href);

// Requests go to where this page came from, whatever the document says of its server: a proxy may
// have taken a path off, and the page's policy allows no other origin. The document names its own
// path; what stands before that in its address is where all paths begin.
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
