// The page at `/`: takes images, asks `v1/explain` for each, shows the answer and where the evidence lies.

import { draw, FULL } from './overlay.js';

// Requests under way at once: more would only wait in the server's queue.
const AT_ONCE = 2;

const VERDICTS = { real: 'Real', fake: 'Generated', uncertain: 'Uncertain' };
const WARNINGS = {
  no_signal: 'No signal: the picture is flat or was enlarged exactly, so it holds nothing to judge.',
  lossy_source: 'Lossy source: the picture was compressed harder than the model can judge.',
  small_source: 'Small source: the picture is smaller than what the network looks at.',
  regions_disagree: 'Regions disagree: a part of the picture looks clearly different from the rest, or the whole looks real and a part hardly does. It may be a collage, or partly edited.',
  first_frame_only: 'First frame only: the file holds several pictures, and only the first was judged.',
};
const CLASSES = {
  lossless: 'a file without loss (PNG, BMP, GIF, TIFF)',
  jpeg_95: 'a JPEG of quality 95 or more',
  jpeg_90_95: 'a JPEG of quality 90 to 95',
  jpeg_80_90: 'a JPEG of quality 80 to 90',
  jpeg_70_80: 'a JPEG of quality 70 to 80',
  jpeg_below_70: 'a JPEG of a quality below 70',
  webp_lossy: 'a lossy WebP or an AVIF',
  small: 'a picture with a side below 256 pixels',
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
    const post = (route) => fetch(route, { method: 'POST', headers, body: job.file, credentials: 'omit' });
    let response = await post('v1/explain');
    // A model without places to explain still judges.
    if (response.status === 501) response = await post('v1/score');
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

/** What was found and how sure it is, in words. */
function meaning({ verdict, score, threshold, evidence }) {
  if (score === null) return 'No score is given: the warnings below say why this picture cannot be judged.';
  if (!evidence) return `Score ${rounded(score, 4)}: the probability that it is generated. The threshold is ${threshold}.`;
  const { class: kind, real_at_or_above: real, fake_at_or_below: fake } = evidence;
  const saved = CLASSES[kind] ?? kind;
  if (real === 1 && fake === 1) {
    return `The model cannot tell real from generated in files like this one: ${saved}. Score ${rounded(score, 4)}.`;
  }
  const suspicious = `Of 100 real photographs saved like this one, ${count(real)} would look this suspicious or more.`;
  const harmless = `Of 100 generated pictures saved like this one, ${count(fake)} would look this harmless or more.`;
  const words = { fake: [suspicious], real: [harmless], uncertain: [suspicious, harmless] }[verdict];
  return `${words.join(' ')} Saved like this one means: ${saved}. Score ${rounded(score, 4)}.`;
}

/** Of 100. The shares are never 0: few pictures do not prove that there is none. */
const count = (share) => (share < 0.01 ? 'fewer than 1' : `about ${Math.round(100 * share)}`);

/** What the file says about itself: beside the pixels, never mixed with them. */
function declare(part, name, declared) {
  const box = part('.declared');
  box.setAttribute('aria-label', `What ${name} says about itself`);
  box.hidden = !declared;
  if (!declared) return;
  const claims = declared.claims.map(({ source, kind, tool, signer, validation }) => {
    const signed = signer ? `, signed by ${signer}` : '';
    const checked = validation && validation !== 'none' ? ` (signature: ${validation})` : '';
    return element('li', `${source}: ${kind.replaceAll('_', ' ')}${tool ? `, ${tool}` : ''}${signed}${checked}`);
  });
  const word = { true: 'It says that it was generated.', false: 'A valid signature says that it was captured.' };
  box.querySelector('p').textContent = claims.length > 0
    ? `${word[declared.generated] ?? 'It does not say whether it was generated.'} This does not move the score.`
    : 'Nothing.';
  box.querySelector('ul').replaceChildren(...claims);
}

async function show(job, answer) {
  const { part, name } = job;
  const { verdict, warnings, image, model, timings_ms: ms, attribution, declared } = answer;
  const words = meaning(answer);
  say(job, verdict, VERDICTS[verdict], words);

  const list = part('.warnings');
  list.replaceChildren(...warnings.map((warning) => element('li', WARNINGS[warning] ?? warning)));
  list.hidden = warnings.length === 0;
  declare(part, name, declared);

  part('.panels').hidden = part('.slider').hidden = !attribution;
  if (attribution) await showPlaces(job, answer);
  else {
    part('.sum').textContent = 'This model does not tell which places its answer rests on.';
    part('tbody').closest('details').hidden = true;
  }

  const turned = image.exif_orientation > 1 ? `, EXIF orientation ${image.exif_orientation}` : '';
  const facts = {
    Image: `${image.format.toUpperCase()}, ${image.width} × ${image.height} pixels stored${turned}, ${image.bytes} bytes`,
    Time: `decode ${ms.decode} ms, queue ${ms.queue} ms, inference ${ms.inference} ms, total ${ms.total} ms`,
    Model: `${model.name} ${model.version}`,
    'Request id': answer.id,
  };
  part('.facts').replaceChildren(...terms(facts));
  part('.about').addEventListener('toggle', () => about(part('.about')), { once: true });
  part('.answer').hidden = false;
  announce(`${name}: ${VERDICTS[verdict]}. ${words} ${warnings.map((warning) => WARNINGS[warning] ?? warning).join(' ')}`);
}

/** The picture with the evidence of its places drawn on it, and the strongest of them. */
async function showPlaces({ part, name, file }, { logit, image, judged, attribution }) {
  const panels = await draw(file, image, attribution);
  for (const panel of panels) panel.setAttribute('aria-label', `${panel.title} of ${name}, and where its evidence lies`);
  part('.panels').replaceChildren(...panels.map(framed));
  const slider = part('.slider input');
  slider.setAttribute('aria-label', `Opacity of the evidence on ${name}`);
  part('.wide').setAttribute('aria-label', `The strongest places of ${name}`);
  const mix = () => {
    for (const panel of panels) panel.querySelector('.map').style.opacity = slider.value / 100;
  };
  slider.addEventListener('input', mix);
  mix();
  part('.low').textContent = `real, −${FULL} or less`;
  part('.high').textContent = `+${FULL} or more, generated`;
  const regions = judged.regions.length === 1 ? 'One region' : `${judged.regions.length} regions`;
  const seen = judged.method === 'crop'
    ? `${regions} of 256 × 256 pixels judged, ${percent(judged.share)} of the picture.`
    : 'The whole picture judged, resized to 256 × 256 pixels.';
  const sum = logit === null ? '' : `: logit ${signed(logit)} (log-odds of generated)`;
  part('.sum').textContent = `${seen} Colour: the contribution of a place to its region's logit, on the same scale for `
    + `all pictures. Bias ${signed(attribution.bias)} and ${attribution.cells.length} places${sum}.`;
  // In a class of file that the model cannot judge all contributions are 0.
  const strongest = attribution.cells.filter(({ contribution }) => contribution !== 0).slice(0, 10);
  part('tbody').closest('details').hidden = strongest.length === 0;
  part('tbody').replaceChildren(...strongest.map(({ contribution, shown: [x0, y0, x1, y1] }) => {
    const speaks = contribution > 0 ? 'generated' : 'real';
    const row = element('tr');
    row.append(...[signed(contribution), speaks, `${x0} to ${x1}`, `${y0} to ${y1}`].map((text) => element('td', text)));
    return row;
  }));
}

/** What the model can and cannot judge, asked for when it is opened. */
async function about(box) {
  const place = box.querySelector('dl');
  try {
    const headers = key ? { 'X-API-Key': key } : {};
    const response = await fetch('v1/model', { headers, credentials: 'omit' });
    const model = await response.json();
    if (!response.ok) throw new Error(model.title);
    // Several models judge different classes of file.
    const models = model.models ?? [model];
    place.replaceChildren(...models.flatMap((one) => terms(limits(one))));
  } catch (error) {
    place.replaceChildren(...terms({ Model: `Its description could not be read: ${error.message}` }));
  }
}

function limits(model) {
  const { name, version, digest, rules, licence_class: licence, operating_point: point, evidence, threshold } = model;
  const classes = Object.entries(evidence?.classes ?? {});
  const blind = classes.filter(([, tables]) => Object.values(tables.regions).every(({ a }) => a === 0));
  const decides = point
    ? `Generated is said where at most ${percent(point.false_alarms)} of real validation pictures score so high, real `
      + `where at most ${percent(point.misses)} of generated ones score so low.`
    : `Generated is said above the score ${threshold}.`;
  return {
    Model: `${name} ${version}`,
    ...(model.classes && { Judges: model.classes.map((kind) => CLASSES[kind] ?? kind).join('; ') }),
    'Licence class': `${licence}: what the licences of its training data allow`,
    'How it decides': decides,
    'Cannot judge': blind.map(([kind]) => CLASSES[kind] ?? kind).join('; ') || 'no class of file is named',
    Limits: 'It was tried on the generators and photographs of its validation set; others may score otherwise. A score is no proof.',
    Weights: digest,
    Rules: rules,
  };
}

const terms = (facts) => Object.entries(facts).flatMap(([term, text]) => [element('dt', term), element('dd', text)]);

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
const percent = (share) => `${Number((100 * share).toPrecision(2))} %`;
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
