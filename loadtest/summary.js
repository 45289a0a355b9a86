// The few lines of k6's summary that matter here.
export function textSummary(data, title) {
  const metric = (name) => (data.metrics[name] || { values: {} }).values;
  const seconds = data.state.testRunDurationMs / 1000;
  const count = (name) => metric(name).count || 0;
  const ms = (name) => ['med', 'p(99)', 'max'].map((stat) => `${stat} ${(metric(name)[stat] || 0).toFixed(1)} ms`).join(', ');
  const statuses = Object.keys(data.metrics).filter((name) => name.startsWith('status_') && count(name) > 0)
    .map((name) => `${name.slice(7)}: ${count(name)}`).join('  ');
  return [
    title,
    `  answers by status   ${statuses || 'none'}   (0: no answer)`,
    `  good answers        ${(count('status_200') / seconds).toFixed(1)} images/s`,
    `  wait of good ones   ${ms('good_wait_ms')}`,
    `  of it in the server ${ms('server_total_ms')}`,
    `  dropped by k6       ${count('dropped_iterations')} (not sent for want of a free client)`,
    '', '',
  ].join('\n');
}
