// The page at `/docs`: the server's own OpenAPI document, laid out to be read.

const main = document.getElementById('document');

const element = (name, ...children) => {
  const made = document.createElement(name);
  made.append(...children);
  return made;
};
const heading = (level, id, ...children) => {
  const made = element(level, ...children);
  made.id = id;
  return made;
};
const link = (target, ...children) => {
  const made = element('a', ...children);
  made.href = target;
  return made;
};
const code = (text) => element('code', String(text));
/** Wider than the page, it is scrolled by keyboard too. */
const scrolled = (made) => {
  made.tabIndex = 0;
  return made;
};
const block = (value) => scrolled(element('pre', code(JSON.stringify(value, null, 2))));

/** A description: paragraphs, with `code` in backticks. */
const prose = (text = '') => text.split(/\n\n+/).filter(Boolean).map((paragraph) => element('p', ...inline(paragraph)));
const inline = (text = '') => text.split('`').map((part, i) => (i % 2 ? code(part) : part));

function table(titles, rows) {
  const head = element('tr', ...titles.map((title) => {
    const cell = element('th', title);
    cell.scope = 'col';
    return cell;
  }));
  const body = rows.map((row) => element('tr', ...row.map((cells) => element('td', ...[cells].flat()))));
  const wide = scrolled(element('div', element('table', element('thead', head), element('tbody', ...body))));
  wide.className = 'wide';
  return wide;
}

/** A schema in a few words. */
function type(schema = {}) {
  if (schema.$ref) {
    const name = schema.$ref.split('/').pop();
    return [link(`#schema-${name}`, name)];
  }
  const several = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (several) {
    const word = schema.allOf ? ' and ' : ' or ';
    return several.flatMap((part, i) => (i ? [word, ...type(part)] : type(part)));
  }
  if (schema.enum) return schema.enum.flatMap((value, i) => (i ? [', ', code(value)] : [code(value)]));
  if (schema.items) return ['array of ', ...type(schema.items)];
  const limits = ['minimum', 'maximum'].filter((limit) => limit in schema).map((limit) => `${limit} ${schema[limit]}`);
  const kind = [schema.type ?? 'any'].flat().join(' or ');
  return [[kind, schema.contentEncoding ?? schema.format, ...limits].filter(Boolean).join(', ')];
}

function examples(content = {}) {
  return Object.entries(content).flatMap(([media, { example, examples: named = {} }]) => {
    const all = [...(example === undefined ? [] : [['Example', example]]),
      ...Object.entries(named).map(([name, { value }]) => [name, value])];
    return all.map(([name, value]) =>
      element('details', element('summary', `${name}, `, code(media)), block(value)));
  });
}

const media = (content = {}) => Object.entries(content).flatMap(([name, { schema }], i) =>
  [...(i ? [element('br')] : []), code(name), ': ', ...type(schema)]);

function operation(path, method, { summary, description, parameters = [], requestBody, responses }) {
  const parts = [heading('h2', `${method}${path}`, code(`${method.toUpperCase()} ${path}`))];
  parts.push(...prose(summary), ...prose(description));
  if (parameters.length > 0) {
    parts.push(element('h3', 'Parameters'), table(['Name', 'In', 'Type', ''], parameters.map((parameter) =>
      [code(parameter.name), parameter.in, type(parameter.schema), inline(parameter.description)])));
  }
  if (requestBody) parts.push(element('h3', 'Body'), element('p', ...media(requestBody.content)), ...examples(requestBody.content));
  const rows = Object.entries(responses).map(([status, response]) => [
    code(status), inline(response.description), media(response.content),
    Object.keys(response.headers ?? {}).flatMap((name, i) => (i ? [element('br'), code(name)] : [code(name)]))]);
  parts.push(element('h3', 'Answers'), table(['Status', '', 'Body', 'Headers'], rows));
  parts.push(...Object.values(responses).flatMap((response) => examples(response.content)));
  return element('section', ...parts);
}

function schema(name, { description, properties, required = [], ...rest }) {
  const parts = [heading('h3', `schema-${name}`, name), ...prose(description)];
  if (properties) {
    parts.push(table(['Property', 'Type', ''], Object.entries(properties).map(([property, of]) =>
      [[code(property), required.includes(property) ? '' : ' (optional)'], type(of), inline(of.description)])));
  } else {
    parts.push(element('p', ...type(rest)));
  }
  // A union's own properties stand in its parts.
  for (const part of rest.allOf ?? rest.oneOf ?? []) {
    if (part.properties) parts.push(...schema(`${name}-part`, part).querySelectorAll('.wide'));
  }
  return element('section', ...parts);
}

function render(api) {
  // What most readers come for is first.
  const first = ['/v1/score', '/v1/score/batch', '/v1/explain', '/v1/model'];
  const rank = ([path]) => (first.includes(path) ? first.indexOf(path) : first.length);
  const operations = Object.entries(api.paths).toSorted((a, b) => rank(a) - rank(b)).flatMap(([path, item]) =>
    Object.entries(item).map(([method, of]) => [path, method, of]));
  const contents = element('ul', ...operations.map(([path, method, { summary }]) =>
    element('li', link(`#${method}${path}`, code(`${method.toUpperCase()} ${path}`)), ` ${summary ?? ''}`)));
  const headers = Object.entries(api.components.headers ?? {}).map(([name, header]) =>
    [code(name), type(header.schema), inline(header.description)]);
  const keys = Object.entries(api.components.securitySchemes ?? {}).map(([name, scheme]) =>
    [name, scheme.in ? `${scheme.in} ${scheme.name}` : `${scheme.type} ${scheme.scheme}`, inline(scheme.description)]);
  main.replaceChildren(
    element('p', `Version ${api.info.version}`), ...prose(api.info.description),
    element('nav', contents),
    ...operations.map((parts) => operation(...parts)),
    heading('h2', 'headers', 'Headers of answers'), table(['Name', 'Type', ''], headers),
    heading('h2', 'keys', 'API keys'), table(['Scheme', 'How', ''], keys),
    heading('h2', 'schemas', 'Schemas'),
    ...Object.entries(api.components.schemas).map((parts) => schema(...parts)),
  );
  // The part that the address names is there only now.
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

try {
  const response = await fetch('openapi.json', { credentials: 'omit' });
  render(await response.json());
} catch (error) {
  main.replaceChildren(element('p', `The document could not be read: ${error.message}`));
}
