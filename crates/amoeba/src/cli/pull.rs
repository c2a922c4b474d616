//! `amoeba pull` and `amoeba list`.
use std::time::{Duration, Instant};

use amoeba::Hub;
use amoeba::hub::{Progress, PullOptions, PullPlan};
use indicatif::ProgressBar;
use serde_json::json;

use super::common::bytes_bar;
use super::console::{Console, bytes, print, print_json, row, table};
use super::failure::Failure;
use super::interrupt::Interrupt;

/// Flags of `pull`.
#[derive(clap::Args)]
pub struct Args {
    /// The model: owner/name, owner/name@revision, or the name of one of mlx-community
    #[arg(value_name = "OWNER/NAME")]
    model: String,
    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Take files for which the server gives no checksum, and compare their lengths alone
    #[arg(long)]
    no_verify: bool,
    /// Refuse to use the network
    #[arg(long)]
    offline: bool,
}

/// Flags of `list`.
#[derive(clap::Args)]
pub struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Downloads, and prints the folder.
pub fn run(args: &Args, console: &Console) -> Result<(), Failure> {
    let hub = Hub::from_env();
    let offline = args.offline || hub.is_offline();
    let hub = hub.with_offline(offline);
    // Never armed: Ctrl-C ends the program, and the next pull resumes.
    let _interrupt = Interrupt::install()?;
    let options = PullOptions { revision: args.revision.clone(), no_verify: args.no_verify };
    let mut screen = Download { console, bar: None, file: String::new(), reported: Instant::now() };
    let outcome = hub.pull(&args.model, &options, &mut screen);
    screen.end();
    print(&format!("{}\n", outcome?.display()))
}

/// Shows a download: bars at a terminal, plain lines elsewhere.
struct Download<'a> {
    console: &'a Console,
    bar: Option<ProgressBar>,
    file: String,
    reported: Instant,
}

const REPORT_EVERY: Duration = Duration::from_secs(10);

impl Download<'_> {
    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Download<'_> {
    fn plan(&mut self, plan: &PullPlan) {
        let free =
            plan.free_bytes.map_or(String::new(), |free| format!(", {} free on the disk", bytes(free)));
        let (files, total, fetch) = (plan.files, bytes(plan.total_bytes), bytes(plan.fetch_bytes));
        let commit: String = plan.commit.chars().take(8).collect();
        self.console
            .note(&format!("{} at {commit}: {files} files, {total}; {fetch} to fetch{free}", plan.id));
    }

    fn bytes(&mut self, file: &str, done: u64, total: u64) {
        let new = self.file != file;
        if new {
            self.end();
            self.file = file.to_owned();
            self.bar = self.console.animated().then(|| bytes_bar(file, total));
        }
        let complete = done == total;
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if complete || self.reported.elapsed() >= REPORT_EVERY => {
                self.reported = Instant::now();
                self.console.note(&format!("{file}: {} of {}", bytes(done), bytes(total)));
            }
            None => {}
        }
        if complete && self.bar.is_some() {
            self.end();
            self.console.note(&format!("{file}: {}", bytes(total)));
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.console.note(text)),
            None => self.console.note(text),
        }
    }
}

/// Lists the cache.
pub fn list(args: &ListArgs) -> Result<(), Failure> {
    let hub = Hub::from_env();
    let models = hub.list()?;
    if args.json {
        let models = models.iter().map(|model| {
            json!({ "id": model.id, "revision": model.revision, "bytes": model.bytes, "path": model.path })
        });
        return print_json(&models.collect());
    }
    if models.is_empty() {
        return print(&format!(
            "no models in {}; amoeba pull OWNER/NAME brings one\n",
            hub.cache().display()
        ));
    }
    let rows: Vec<_> =
        models.iter().map(|model| row([&model.id, &model.revision, &bytes(model.bytes)])).collect();
    print(&table(&rows, [false, false, true]))
}
