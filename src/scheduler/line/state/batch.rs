//! The dynamic batcher: forms a batch when a session is free, from the runs that wait at that moment.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Started, State};
use crate::{
    metrics::Release,
    scheduler::{
        client::ClientId,
        line::work::{Batch, Call, Place},
    },
};

impl State {
    /// The batch for a called session; `None` if all runs have been withdrawn. Also returns the answers for runs whose
    /// deadline has passed.
    pub(in crate::scheduler::line) fn take_batch(
        &mut self,
        call: &mut Call,
        costs: &[Duration],
        now: Instant,
    ) -> (Option<Batch>, Vec<Started>) {
        let model = call.model;
        self.models[model].called -= 1;
        // Waiting runs are split among the free sessions: two half batches in parallel end sooner than one full batch
        // beside an idle core.
        let cpus = if self.bounds.runs_take_cpu[model] { self.cpus_free } else { usize::MAX };
        let sessions = &self.models[model];
        let free = 1 + sessions.called + sessions.idle.len().min(cpus);
        let (share, most) = (self.runs(model).div_ceil(free), costs.len().max(1));
        let (resource, ahead) = (self.run_resource(model), self.backlog.cost(model));
        let (mut jobs, mut clients, mut late) = (Vec::new(), Vec::new(), Vec::new());
        let mut tightest = Duration::MAX;
        let mut reason = None;
        while jobs.len() < share.min(most) {
            let Some((client, place)) = self.first_run(model) else { break };
            let Some(account) = self.accounts.get_mut(&client) else { break };
            let Some(deadline) = account.runs[model].get(&place).map(|waiting| waiting.job.deadline) else { break };
            tightest = tightest.min(deadline.saturating_duration_since(now));
            // One more image must not make the run outlast the tightest deadline in it.
            if deadline > now && !jobs.is_empty() && costs.get(jobs.len()).is_some_and(|&cost| cost > tightest) {
                reason = Some(Release::Deadline);
                break;
            }
            let Some(waiting) = account.runs[model].remove(&place) else { break };
            if deadline <= now {
                late.push(Started::Late(waiting.reply));
                continue;
            }
            account.served_after(waiting.job.timings.queue + (now - waiting.since), now);
            self.accounts.serve(&client, resource, ahead);
            jobs.push(waiting);
            clients.push(client);
        }
        if jobs.is_empty() {
            return (None, late);
        }
        let reason = reason.unwrap_or(match () {
            () if jobs.len() == most => Release::Full,
            () if !self.bounds.delay.is_zero() && self.is_decoding() => Release::Window,
            () => Release::Idle,
        });
        let number = self.number();
        self.running.insert(number, now);
        let (line, cpu) = (Arc::clone(&call.line), call.cpu.take());
        let batch = Batch {
            line,
            model,
            number,
            started: now,
            jobs,
            reason,
            clients,
            ahead,
            resource,
            went_well: false,
            _cpu: cpu,
        };
        (Some(batch), late)
    }

    fn first_run(&self, model: usize) -> Option<(ClientId, Place)> {
        let resource = self.run_resource(model);
        let first = self.accounts.iter().filter_map(|(client, account)| {
            let (&place, _) = account.runs[model].first_key_value()?;
            Some((self.accounts.rank(account, resource, place), client))
        });
        first.min_by_key(|(rank, _)| *rank).map(|((_, _, place), client)| (client.clone(), place))
    }
}
