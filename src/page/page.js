// The page at `/`: takes images, asks `v1/explain` for each, shows the answer and where the evidence lies.

import { draw } from './overlay.js';

// Requests under way at once: more would only wait in the server's queue.
const AT_ONCE = 2;

const VERDICTS = { real: 'Real', fake: 'Generated', uncertain: 'Uncertain' };
const WARNINGS = {
  no_signal: 'No signal: the picture is flat or was enlarged exactly, so it holds nothing to judge.',
  lossy_source: 'Lossy source: the picture was compressed harder than the model can judge.',
  small_source: 'Small source: the picture is smaller than what the network looks at.',
};

const byId = (id) => document.getElementById(id);
const [picker, access, results, status] = ['files', 'access', 'results', 'status'].map(byId);

// In memory only: neither storage nor a cookie ever sees it.
let key = '';
const waiting = [];
let underWay = 0;

function take(files) {
  for (const file of files) {
    const view = byId('result').content.cloneNode(true).firstElementChild;
    const part = (selector) => view.querySelector(selector);
    const name = file.name || 'Pasted image';
    part('h2').textContent = name;
    part('.remove').setAttribute('aria-label', `Remove ${name}`);
    part('.again').setAttribute('aria-label', `Try ${name} again`);
    const job = { file, name, view, part };
    part('.remove').addEventListener('click', () => {
      waiting.splice(0, waiting.length, ...waiting.filter((other) => other !== job));
      // Focus must not fall back to the top of the page.
      const next = view.nextElementSibling ?? view.previousElementSibling;
      view.remove();
      (next?.querySelector('.remove') ?? picker).focus();
    });
    part('.again').addEventListener('click', () => enqueue(job));
    results.append(view);
    enqueue(job);
  }
}

function enqueue(job) {
  say(job, '', 'Waiting', '');
  job.part('.again').hidden = true;
  waiting.push(job);
  work();
}

async function work() {
  // Nothing is asked for while a key is.
  while (access.hidden && underWay < AT_ONCE && waiting.length > 0) {
    const job = waiting.shift();
    underWay += 1;
    say(job, '', 'Judging', '');
    ask(job).finally(() => {
      underWay -= 1;
      work();
    });
  }
}

async function ask(job) {
  const headers = { Accept: 'application/json', 'Content-Type': 'application/octet-stream' };
  const sent = key;
  if (sent) headers['X-API-Key'] = sent;
  try {
    const response = await fetch('v1/explain', { method: 'POST', headers, body: job.file, credentials: 'omit' });
    const answer = await response.json();
    if (response.ok) return await show(job, answer);
    if (response.status === 401) return askForKey(job, answer, sent);
    fail(job, answer.title, answer.detail, response.headers.get('Retry-After'));
  } catch (error) {
    // `fetch` throws where no answer came, `json` where it came from something in between.
    fail(job, 'No answer', `The server could not be reached, or the file could not be read (${error.message}).`, '');
  }
}

function askForKey(job, answer, sent) {
  waiting.unshift(job);
  say(job, '', 'Waiting for an API key', '');
  // Of requests under way together the first one asks.
  if (!access.hidden || sent !== key) return;
  byId('why').textContent = key ? `That key was refused: ${answer.detail}.` : 'This server asks for an API key.';
  key = '';
  access.hidden = false;
  byId('key').focus();
}

access.addEventListener('submit', (event) => {
  event.preventDefault();
  key = byId('key').value.trim();
  byId('key').value = '';
  access.hidden = true;
  picker.focus();
  work();
});

/** A failure: what and why. With `retryAfter`, even an empty one, trying again may help. */
function fail(job, title, detail, retryAfter) {
  const wait = retryAfter ? ` Try again in ${retryAfter} s.` : '';
  say(job, 'failed', title, sentence(detail) + wait);
  job.part('.again').hidden = retryAfter === null;
  announce(`${job.name}: ${title}. ${sentence(detail)}${wait}`);
}

async function show(job, answer) {
  const { part, name } = job;
  const { verdict, score, logit, threshold, warnings, image, model, timings_ms: ms, attribution } = answer;
  const meaning = `Score ${rounded(score, 4)}: the probability that it is generated. The threshold is ${threshold}.`;
  say(job, verdict, VERDICTS[verdict], meaning);

  const list = part('.warnings');
  list.replaceChildren(...warnings.map((warning) => element('li', WARNINGS[warning] ?? warning)));
  list.hidden = warnings.length === 0;

  const { panels, largest } = await draw(job.file, image, attribution);
  for (const panel of panels) panel.setAttribute('aria-label', `${panel.title} of ${name}, and where its evidence lies`);
  part('.panels').replaceChildren(...panels.map(framed));
  const slider = part('.slider input');
  slider.setAttribute('aria-label', `Opacity of the evidence on ${name}`);
  const mix = () => {
    // At 0 the picture as it is; further up it turns grey, so that every colour is evidence.
    const share = slider.value / 100;
    for (const panel of panels) {
      panel.querySelector('.picture').style.filter = `grayscale(${Math.min(1, share * 2)})`;
      panel.querySelector('.map').style.opacity = share;
    }
  };
  slider.addEventListener('input', mix);
  mix();
  part('.low').textContent = `real, −${rounded(largest, 3)}`;
  part('.high').textContent = `+${rounded(largest, 3)}, generated`;
  const places = logit - attribution.bias;
  part('.sum').textContent = `Contribution to the logit (log-odds of generated). Bias ${signed(attribution.bias)}, `
    + `${attribution.cells.length} places ${signed(places)}: logit ${signed(logit)}.`;
  part('tbody').replaceChildren(...attribution.cells.slice(0, 10).map(({ contribution, box: [x0, y0, x1, y1] }) => {
    const speaks = contribution > 0 ? 'generated' : 'real';
    const row = element('tr');
    row.append(...[signed(contribution), speaks, `${x0} to ${x1}`, `${y0} to ${y1}`].map((text) => element('td', text)));
    return row;
  }));

  const turned = image.exif_orientation > 1 ? `, EXIF orientation ${image.exif_orientation}` : '';
  const facts = {
    Image: `${image.format.toUpperCase()}, ${image.width} × ${image.height} pixels stored${turned}, ${image.bytes} bytes`,
    Time: `decode ${ms.decode} ms, queue ${ms.queue} ms, inference ${ms.inference} ms, total ${ms.total} ms`,
    Model: `${model.name} ${model.version}`,
    'Request id': answer.id,
  };
  part('dl').replaceChildren(...Object.entries(facts).flatMap(([term, text]) => [element('dt', term), element('dd', text)]));
  part('.answer').hidden = false;
  announce(`${name}: ${VERDICTS[verdict]}. ${meaning} ${warnings.map((warning) => WARNINGS[warning]).join(' ')}`);
}

function framed(panel) {
  const frame = element('div');
  frame.className = 'panel';
  frame.append(element('p', panel.title), panel);
  panel.removeAttribute('title');
  return frame;
}

function say({ view, part }, state, verdict, meaning) {
  view.className = state;
  view.setAttribute('aria-busy', String(state === ''));
  part('.verdict').textContent = verdict;
  part('.meaning').textContent = meaning;
}

/** For screen readers. */
function announce(text) {
  status.textContent = text;
}

function element(name, text = '') {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
const rounded = (value, digits) => value.toFixed(digits);
const signed = (value) => (value < 0 ? '−' : '+') + Math.abs(value).toFixed(3);

picker.addEventListener('change', () => {
  take(picker.files);
  // The same file can be chosen again.
  picker.value = '';
});
document.addEventListener('paste', (event) => take(event.clipboardData.files));
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('over');
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) document.body.classList.remove('over');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('over');
  take(event.dataTransfer.files);
});
