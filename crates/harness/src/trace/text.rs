//! A summary for people.

use super::{OpTime, Subject, Summary};

/// Share of the busiest worker's time below which a worker counts as absent.
const ABSENT: f64 = 0.25;
/// Ops named as those that wait on the way through the experts.
const WAITERS: usize = 4;

impl Summary {
    /// Facts, workers, idle time, and a table of ops.
    pub fn markdown(&self) -> String {
        let Subject { model, device_detail, path_reason, depth, .. } = &self.subject;
        let wall = self.wall_ns.median;
        let tokens = match self.subject.tokens {
            1 => format!("1 token: {} µs", micros(wall)),
            n => {
                let [p10, p90] = [self.wall_ns.p10, self.wall_ns.p90].map(micros);
                format!("{n} tokens: {} µs each (median; {p10} to {p90})", micros(wall))
            }
        };
        let mut out = format!(
            "{model} on {device_detail}, {path_reason}, {depth} cached before\n{tokens}, {:.0} phases, \
             {:.2} MB read, {:.1} GB/s\n",
            self.phases,
            self.bytes / 1e6,
            self.bytes / wall,
        );
        for (index, worker) in self.workers.iter().enumerate() {
            let (busy, idle) = (worker.busy_ns, worker.idle_ns);
            let share = percent(idle / (busy + idle));
            let lane = self.subject.lane(index);
            out += &format!("{lane}: busy {} µs, idle {} µs ({share})\n", micros(busy), micros(idle));
        }
        if self.tick_ns > 0 {
            out += &format!(
                "the device's clock ticks every {} ns: shorter intervals cannot be distinguished\n",
                self.tick_ns
            );
        }
        out += &self.absent();
        out += &self.idle_line();
        out += "\n| op | per token | busy µs | share | wall µs | MB | GB/s | waits µs | of it between router \
                and sum of experts |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        let whole: f64 = self.workers.iter().map(|worker| worker.busy_ns + worker.idle_ns).sum();
        self.ops.iter().for_each(|op| out += &line(op, whole));
        out
    }

    /// Workers without a share of the work: something else had their cores.
    fn absent(&self) -> String {
        let most = self.workers.iter().map(|worker| worker.busy_ns).fold(0.0, f64::max);
        let absent = self.workers.iter().enumerate().filter(|(_, worker)| worker.busy_ns < ABSENT * most);
        absent.fold(String::new(), |out, (index, _)| {
            out + &format!("worker {index} did almost nothing: other work held its core; capture again\n")
        })
    }

    fn idle_line(&self) -> String {
        let mut out = format!("idle: {} of the workers' time", percent(self.idle.median));
        let waits: f64 = self.ops.iter().map(|op| op.expert_wait_ns).sum();
        if waits > 0.0 {
            let mut waiting: Vec<&OpTime> = self.ops.iter().filter(|op| op.expert_wait_ns > 0.0).collect();
            waiting.sort_by(|a, b| b.expert_wait_ns.total_cmp(&a.expert_wait_ns));
            let name = |op: &&OpTime| format!("`{}` {} µs", op.label, micros(op.expert_wait_ns));
            let names: Vec<String> = waiting.iter().take(WAITERS).map(name).collect();
            out += &format!(
                "; between router and sum of experts {} ({} µs of all workers, before {})",
                percent(self.expert_idle.median),
                micros(waits),
                names.join(", "),
            );
        }
        out + "\n"
    }
}

fn line(op: &OpTime, whole: f64) -> String {
    let some = |x: f64, text: String| if x > 0.0 { text } else { String::new() };
    let cells = [
        op.label.clone(),
        some(op.ops, format!("{:.0}", op.ops)),
        micros(op.busy_ns),
        percent(op.busy_ns / whole),
        micros(op.wall_ns),
        some(op.bytes, format!("{:.3}", op.bytes / 1e6)),
        op.bandwidth().map_or_else(String::new, |rate| format!("{:.1}", rate / 1e9)),
        micros(op.wait_ns),
        some(op.expert_wait_ns, micros(op.expert_wait_ns)),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn micros(ns: f64) -> String {
    format!("{:.1}", ns / 1e3)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
