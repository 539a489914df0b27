// Shows the document in Swagger UI. Its Authorize button posts to the document's tokenUrl, /auth/token.
document.body.style.margin = 0;
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  persistAuthorization: false,  // a token stays in the page, and is gone with it
  tryItOutEnabled: true,
  validatorUrl: null,  // nothing is asked of anybody else
});
