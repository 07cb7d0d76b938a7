const page = document.getElementById("page");
Redoc.init(page.dataset.document, {}, page);
