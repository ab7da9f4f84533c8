//! Writes figures as OpenMetrics text, which Prometheus reads.

use std::fmt::{self, Write as _};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use calos_commands::figures::Distribution;

use super::families;
use crate::wiring::App;

/// What [`render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A label and its value.
pub type Label<'a> = (&'static str, &'a str);

/// Everything the server counts, as text.
///
/// # Errors
/// None in practice: writing to memory does not fail.
pub fn render(app: &App) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(app.clone())));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

struct Scrape(App);

impl fmt::Debug for Scrape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::all(&self.0, &mut Page(encoder))
    }
}

/// A page of figures that is being written: one family after the other.
pub struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// A number that only grows; `_total` is added to its name.
    pub fn counter<'l>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Vec<Label<'l>>, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
            } else {
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
            }
        }
        Ok(())
    }

    /// How something stands at the moment.
    pub fn gauge<'l, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Vec<Label<'l>>, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    /// How often something was how large. What was counted is divided by `unit`.
    pub fn histogram<'l>(
        &mut self,
        name: &str,
        help: &str,
        unit: f64,
        series: impl IntoIterator<Item = (Vec<Label<'l>>, Distribution)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, read) in series {
            let bounds = read.bounds.iter().map(|bound| *bound as f64 / unit).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(read.counts.iter().copied()).collect();
            let sum = read.sum as f64 / unit;
            if labels.is_empty() {
                family.encode_histogram::<NoLabelSet>(sum, read.count(), &buckets, None)?;
            } else {
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, read.count(), &buckets, None)?;
            }
        }
        Ok(())
    }
}

/// The names of the families in a page: what `# TYPE` lines announce, as a dashboard writes them.
#[must_use]
pub fn series_in(page: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let Some((name, kind)) = line.split_once(' ') else { continue };
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        for suffix in suffixes {
            let mut series = String::with_capacity(name.len() + suffix.len());
            // Writing to memory does not fail.
            let _ = write!(series, "{name}{suffix}");
            names.push(series);
        }
    }
    names
}
