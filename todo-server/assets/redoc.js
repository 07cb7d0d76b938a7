const page = document.getElementById("page");
Redoc.init(new URL(page.dataset.document, location.href).href, {}, page);
