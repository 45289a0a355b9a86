// Load on /v1/score, closed or open loop; `make load` runs it against a server that it starts.
//
// Environment: URL, IMAGE (a file), and either CLIENTS (closed loop: each sends its next image when the last is
// answered) or RATE (open loop: images a second, sent at their intended times whatever the answers do), DURATION.
//
// In the open loop the wait counts from the intended send time: k6 starts each iteration on its tick while a client
// is free, and MOST_CLIENTS are; an iteration that could not start on time is counted as dropped, never sent late.
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';
import { textSummary } from './summary.js';

const MOST_CLIENTS = 1000;
const image = open(__ENV.IMAGE, 'b');
const rate = Number(__ENV.RATE || 0);
const duration = __ENV.DURATION || '10s';

const statuses = {};
for (const status of [200, 429, 503, 504, 0]) {
  statuses[status] = new Counter(`status_${status}`);
}
const other = new Counter('status_other');
// What the server says of itself, beside what the client sees.
const serverTotal = new Trend('server_total_ms');
const goodWait = new Trend('good_wait_ms');

export const options = {
  discardResponseBodies: false,
  summaryTrendStats: ['med', 'p(99)', 'max'],
  scenarios: {
    load: rate
      ? { executor: 'constant-arrival-rate', rate: Math.round(rate * 60), timeUnit: '1m', duration,
          preAllocatedVUs: Math.min(MOST_CLIENTS, Math.ceil(rate) * 2), maxVUs: MOST_CLIENTS }
      : { executor: 'constant-vus', vus: Number(__ENV.CLIENTS || 4), duration },
  },
};

export default function () {
  const answer = http.post(`${__ENV.URL}/v1/score`, image, { headers: { 'Content-Type': 'application/octet-stream' } });
  (statuses[answer.status] || other).add(1);
  if (answer.status === 200) {
    goodWait.add(answer.timings.duration);
    serverTotal.add(answer.json('timings_ms.total'));
  }
}

export function handleSummary(data) {
  const text = textSummary(data, rate ? `open loop, ${rate} images/s` : `closed loop, ${__ENV.CLIENTS || 4} clients`);
  return { stdout: text, ...(__ENV.SUMMARY ? { [__ENV.SUMMARY]: JSON.stringify(data.metrics) } : {}) };
}
