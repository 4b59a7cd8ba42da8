// Draws /openapi.json with Swagger UI, and under each operation its request in three languages.
"use strict";

function Examples({ samples, React }) {
  const [chosen, choose] = React.useState(0);
  const h = React.createElement;
  const tab = (sample, index) =>
    h("button", {
      key: sample.lang, role: "tab", type: "button",
      "aria-selected": index === chosen, onClick: () => choose(index),
    }, sample.label);
  return h("section", { className: "examples" },
    h("h4", null, "Example"),
    h("div", { role: "tablist" }, samples.map(tab)),
    h("pre", { "data-lang": samples[chosen].lang }, h("code", null, samples[chosen].source)));
}

// Swagger UI knows no x-codeSamples; they stand where an operation's responses begin.
function withExamples(system) {
  const { React } = system;
  return {
    wrapComponents: {
      responses: (Responses) => function ResponsesAfterExamples(props) {
        const path = props.specPath?.toJS?.() ?? [];
        const operation = system.specSelectors.specJson().getIn(path.slice(0, 3));
        const samples = operation?.get?.("x-codeSamples")?.toJS();
        return React.createElement(React.Fragment, null,
          samples ? React.createElement(Examples, { samples, React }) : null,
          React.createElement(Responses, props));
      },
    },
  };
}

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#explorer",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  validatorUrl: null,
  plugins: [withExamples],
});
