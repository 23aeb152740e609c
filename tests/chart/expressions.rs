//! What an expression of Prometheus names: metrics, their labels and values. What of it a scrape does not have is misspelt, and with a misspelt
//! name an alert never fires and a panel stays empty.

use std::collections::BTreeMap;

/// Labels that a scrape puts on whatever it reads.
const OF_TARGETS: [&str; 5] = ["cluster", "namespace", "job", "instance", "pod"];

/// A metric of an expression, and what its braces ask of its labels: label, operator, value.
#[derive(Debug, PartialEq, Eq)]
struct Selector {
    metric: String,
    matchers: Vec<(String, String, String)>,
}

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    selectors: Vec<Selector>,
    /// The labels of `by`, `on` and the like.
    pub(crate) groups: Vec<String>,
}

/// A reader of an expression.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn space(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let (taken, rest) = self.0.split_at(self.0.find(|c| !wanted(c)).unwrap_or(self.0.len()));
        self.0 = rest;
        taken
    }

    fn until(&mut self, end: char) -> &'a str {
        let (taken, rest) = self.0.split_once(end).unwrap_or_else(|| panic!("no {end} in {}", self.0));
        self.0 = rest;
        taken
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.space();
        self.0.strip_prefix(wanted).map(|rest| self.0 = rest).is_some()
    }

    /// `label="value", …}`, behind the brace. Values have no backslashes here.
    fn matchers(&mut self) -> Vec<(String, String, String)> {
        let mut matchers = Vec::new();
        while !self.eat('}') {
            let label = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').to_owned();
            self.space();
            let operator = self.take_while(|c| "=!~".contains(c)).to_owned();
            assert!(!label.is_empty() && !operator.is_empty() && self.eat('"'), "no matcher: {}", self.0);
            let value = self.until('"').to_owned();
            assert!(!value.contains('\\'), "{value}");
            matchers.push((label, operator, value));
            self.eat(',');
        }
        matchers
    }
}

/// Reads an expression, which promtool has found to be one.
pub(crate) fn named(expression: &str) -> Named {
    let mut named = Named::default();
    let mut reader = Reader(expression);
    loop {
        reader.space();
        let Some(first) = reader.0.chars().next() else { return named };
        match first {
            '"' => {
                reader.eat('"');
                reader.until('"');
            }
            '[' => {
                reader.until(']');
            }
            '0'..='9' => {
                reader.take_while(|c| c.is_ascii_alphanumeric() || c == '.');
            }
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let word = reader.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
                reader.space();
                match word {
                    "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" => {
                        if reader.eat('(') {
                            let labels = reader.until(')').split(',').map(str::trim);
                            named.groups.extend(labels.filter(|label| !label.is_empty()).map(str::to_owned));
                        }
                    }
                    "and" | "or" | "unless" | "bool" | "offset" => {}
                    _ if reader.0.starts_with('(') => {}
                    _ if reader.0.starts_with("by ") || reader.0.starts_with("without ") => {}
                    metric => {
                        let matchers = if reader.eat('{') { reader.matchers() } else { Vec::new() };
                        named.selectors.push(Selector { metric: metric.to_owned(), matchers });
                    }
                }
            }
            '{' => panic!("a selector without a name in {expression}"),
            other => {
                reader.eat(other);
            }
        }
    }
}

impl Named {
    /// The metrics.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = &str> {
        self.selectors.iter().map(|selector| selector.metric.as_str())
    }
}

/// The series of a scrape.
#[derive(Debug, Default)]
pub(crate) struct Scrape(BTreeMap<String, Vec<BTreeMap<String, String>>>);

impl Scrape {
    /// Adds what `GET /metrics` gave.
    pub(crate) fn add(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no series: {line}"));
            let (name, mut rest) = (&line[..end], Reader(&line[end..]));
            let labels = if rest.eat('{') { rest.matchers() } else { Vec::new() };
            let labels = labels.into_iter().map(|(label, _, value)| (label, value)).collect();
            self.0.entry(name.to_owned()).or_default().push(labels);
        }
    }

    /// What an expression names and this does not have.
    pub(crate) fn lacks(&self, expression: &str) -> Vec<String> {
        let named = named(expression);
        let mut lacks = Vec::new();
        if named.selectors.is_empty() {
            lacks.push("any metric".to_owned());
        }
        let none = Vec::new();
        let of = |metric: &str| self.0.get(metric).unwrap_or(&none);
        for Selector { metric, matchers } in &named.selectors {
            if of(metric).is_empty() {
                lacks.push(format!("the metric {metric}"));
                continue;
            }
            for (label, operator, value) in matchers.iter().filter(|(label, ..)| !OF_TARGETS.contains(&label.as_str()))
            {
                // Both what is asked for and what is left out has to be there.
                let alternatives: Vec<_> =
                    if operator.ends_with('~') { value.split('|').collect() } else { vec![value] };
                for wanted in alternatives {
                    let (suffix, literal) = match wanted.strip_prefix(".*") {
                        Some(rest) => (true, rest.replace("[.]", ".")),
                        None => (false, wanted.to_owned()),
                    };
                    let is = |found: &String| if suffix { found.ends_with(&literal) } else { *found == literal };
                    if !of(metric).iter().filter_map(|labels| labels.get(label)).any(is) {
                        lacks.push(format!("{metric} with {label}={wanted}"));
                    }
                }
            }
        }
        for label in named.groups.iter().filter(|label| !OF_TARGETS.contains(&label.as_str())) {
            let has = |metric| of(metric).iter().any(|labels| labels.contains_key(label));
            if !named.metrics().any(has) {
                lacks.push(format!("the label {label}"));
            }
        }
        lacks
    }
}

#[test]
fn expressions_are_read() {
    let read = named(
        "histogram_quantile(0.99, sum by (a, le) (rate(x_bucket{b=\"by (q)\", c=~\"d|e\"}[5m]))) > 1e3 and on (job) group_left (version) y * 7 or sum(z offset 5m) unless max without (k) (w)",
    );
    assert_eq!(read.metrics().collect::<Vec<_>>(), ["x_bucket", "y", "z", "w"]);
    assert_eq!(read.groups, ["a", "le", "job", "version", "k"]);
    let matchers = [("b", "=", "by (q)"), ("c", "=~", "d|e")].map(|(a, b, c)| (a.into(), b.into(), c.into()));
    assert_eq!(read.selectors[0].matchers, matchers);
}

#[test]
fn what_is_misspelt_is_found() {
    let mut scrape = Scrape::default();
    scrape.add("# TYPE x counter\nx_total{a=\"1\",b=\"p q\"} 0\nx_total{a=\"2\",b=\"r\"} 1\ny 5.0\n# EOF\n");
    for sound in [
        "sum by (a, cluster) (rate(x_total{a=~\"1|2\", job=\"$job\"}[5m])) > y",
        "x_total{b!=\"r\"} - time()",
        "absent(y)",
        "max by (a) (x_total{b=~\".*q\"})",
    ] {
        assert!(scrape.lacks(sound).is_empty(), "{sound}: {:?}", scrape.lacks(sound));
    }
    for (expression, lack) in [
        ("sum(rate(x[5m]))", "the metric x"),
        ("y / z", "the metric z"),
        ("x_total{aa=\"1\"}", "x_total with aa=1"),
        ("x_total{a=~\"1|3\"}", "x_total with a=3"),
        ("x_total{a!=\"4\"}", "x_total with a=4"),
        ("x_total{b=~\".*s\"}", "x_total with b=.*s"),
        ("sum by (c) (x_total)", "the label c"),
        ("x_total * on (a) group_left (d) y", "the label d"),
        ("time()", "any metric"),
    ] {
        assert_eq!(scrape.lacks(expression), [lack], "{expression}");
    }
}
