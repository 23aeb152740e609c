//! What every process tells Prometheus, under the names that all clients of Prometheus use; the library that we use for metrics has no
//! collector for it. Where `/proc` does not tell, the metric is left out.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks a second, in which Linux tells times of a process: 100 on all its platforms.
const TICKS: f64 = 100.0;

/// The process that runs this.
#[derive(Debug)]
pub(super) struct Process;

struct Stat {
    cpu_seconds: f64,
    started_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

fn stat() -> Option<Stat> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may have anything in it.
    let fields: Vec<f64> =
        text.rsplit_once(") ")?.1.split(' ').map(|field| field.trim().parse().unwrap_or_default()).collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) / TICKS,
        started_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// When the machine was started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn page_bytes() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let resident = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kilobytes: f64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// How many files may be open.
fn max_files() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a process has at most some million open files")]
    let count = |entries: fs::ReadDir| entries.count() as f64;
    fs::read_dir("/proc/self/fd").ok().map(count)
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stat = stat();
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes",
                page_bytes().or_else(|| stat.as_ref().map(|stat| stat.resident_pages * 4096.0)),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes",
                stat.as_ref().map(|stat| stat.virtual_bytes),
            ),
            (
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds",
                stat.as_ref().zip(boot_time()).map(|(stat, boot)| boot + stat.started_ticks / TICKS),
            ),
            ("process_open_fds", "Number of open file descriptors", open_files()),
            ("process_max_fds", "Maximum number of open file descriptors", max_files()),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        if let Some(stat) = stat {
            let counter = ConstCounter::new(stat.cpu_seconds);
            let help = "Total user and system CPU time spent in seconds";
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
