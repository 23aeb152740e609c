//! How a look-up, a change and memory grow with how much there is, each at three sizes. What is measured at the largest size is
//! printed beside its target, and beside the smallest one: a curve says more than a figure.
//!
//! `bench/scale` runs it. `docs/performance.md` explains the curves.

mod running;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_image::ImageReference;
use countersign_policy::{Applies, Check, Entry, Mode, Pattern, Policy, PolicyKind, PolicySet};
use countersign_tests::Problem;

/// How many entries there are.
const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// How many entries a policy has.
const POLICY: usize = 100;

/// How often each measurement is made; the median counts.
const ROUNDS: usize = 9;

fn policy(kind: PolicyKind, name: &str, names: &[String]) -> Policy {
    let entry = |name: &String| Entry {
        pattern: Pattern::parse(name).expect("a name of an entry"),
        mutate_image: true,
        require_present: false,
        mode: None,
        check: Check::Nothing,
    };
    Policy { kind, name: name.to_owned(), entries: names.iter().map(entry).collect(), strictest: None, unusable: None }
}

/// Policies of the cluster with these entries.
fn policies(names: &[String]) -> Vec<Arc<Policy>> {
    let policy = |(index, names)| Arc::new(policy(PolicyKind::Cluster, &format!("p{index}"), names));
    names.chunks(POLICY).enumerate().map(policy).collect()
}

/// The median of what a measurement takes.
fn median(mut once: impl FnMut() -> Duration) -> Duration {
    let mut all: Vec<_> = (0..ROUNDS).map(|_| once()).collect();
    all.sort();
    all[ROUNDS / 2]
}

/// How long one of many calls takes.
fn each(times: u32, mut call: impl FnMut()) -> Duration {
    median(|| {
        let began = Instant::now();
        (0..times).for_each(|_| call());
        began.elapsed() / times
    })
}

/// What entries look like, with the image that the last of them is for.
struct Shape {
    what: &'static str,
    entry: fn(usize) -> String,
    image: fn(usize) -> String,
}

const SHAPES: [Shape; 6] = [
    Shape {
        what: "one host: h.io/teamN/*",
        entry: |n| format!("h.io/team{n}/*"),
        image: |n| format!("h.io/team{n}/app:v1"),
    },
    Shape { what: "a host each: rN.h.io/*", entry: |n| format!("r{n}.h.io/*"), image: |n| format!("r{n}.h.io/app:v1") },
    Shape {
        what: "wild hosts: *.rN.io/app",
        entry: |n| format!("*.r{n}.io/app"),
        image: |n| format!("a.r{n}.io/app:v1"),
    },
    Shape {
        what: "by their ends: h.io/*/appN",
        entry: |n| format!("h.io/*/app{n}"),
        image: |n| format!("h.io/team/app{n}:v1"),
    },
    Shape { what: "no wildcard: h.io/appN", entry: |n| format!("h.io/app{n}"), image: |n| format!("h.io/app{n}:v1") },
    Shape {
        what: "what is left: h.io/*-N-*",
        entry: |n| format!("h.io/*-{n}-*"),
        image: |n| format!("h.io/a-{n}-b:v1"),
    },
];

/// How long it takes to find the entry for an image, and how long to look at all entries one after the other.
fn lookups() {
    println!("\nTo find the entry for an image, of 100, 1 000 and 10 000 (target: 2 µs of 10 000 with wildcards)");
    println!("{:<28} {:>10} {:>10} {:>10}   {:>16}", "entries", "100", "1 000", "10 000", "one by one");
    for shape in SHAPES {
        let mut took = Vec::new();
        let mut plain = Duration::ZERO;
        for size in SIZES {
            let names: Vec<_> = (0..size).map(shape.entry).collect();
            let policies = policies(&names);
            let set = PolicySet::default().followed_by(policies.clone());
            let image = ImageReference::parse(&(shape.image)(size - 1)).expect("an image");
            let find = || set.applies("n", black_box(&image), Mode::Enforce);
            assert!(matches!(find(), Applies::Entry(found) if found.entry.pattern.written() == names[size - 1]));
            took.push(each(2_000, || {
                black_box(find());
            }));
            plain = each(20, || {
                let entries = policies.iter().flat_map(|policy| &policy.entries);
                let found = entries.filter(|entry| entry.matches(black_box(&image), Mode::Enforce));
                black_box(found.max_by_key(|entry| entry.pattern.specificity()));
            });
        }
        let [few, some, many] = took[..] else { return };
        println!("{:<28} {few:>10.0?} {some:>10.0?} {many:>10.0?}   {plain:>16.0?}", shape.what);
    }
}

/// How long it takes until a changed policy counts, once it was read.
fn changes() {
    println!("\nTo put one changed policy in force (target: 50 ms of 10 000 entries, or 5 000 namespaces)");
    println!("{:<28} {:>10} {:>10} {:>10}", "", "a hundredth", "a tenth", "all");
    let changed = |before: &[Arc<Policy>], kind: &PolicyKind| {
        let set = PolicySet::default().followed_by(before.to_vec());
        let mut after = before.to_vec();
        let last = after.len() - 1;
        let names: Vec<_> = (0..POLICY).map(|n| format!("new.io/team{n}/*")).collect();
        after[last] = Arc::new(policy(kind.clone(), &before[last].name, &names));
        median(|| {
            let began = Instant::now();
            black_box(set.followed_by(after.clone()));
            began.elapsed()
        })
    };
    for (what, entry) in
        [("cluster policies, one host", SHAPES[0].entry), ("cluster policies, wild hosts", SHAPES[2].entry)]
    {
        let took =
            SIZES.map(|size| changed(&policies(&(0..size).map(entry).collect::<Vec<_>>()), &PolicyKind::Cluster));
        println!("{what:<28} {:>10.1?} {:>10.1?} {:>10.1?}", took[0], took[1], took[2]);
    }
    let took = [50, 500, 5_000].map(|namespaces| {
        let kind = |n: usize| PolicyKind::Image { namespace: format!("team-{n}") };
        let names: Vec<_> = (0..10).map(|n| format!("h.io/team{n}/*")).collect();
        let all: Vec<_> = (0..namespaces).map(|n| Arc::new(policy(kind(n), "own", &names))).collect();
        changed(&all, &kind(namespaces - 1))
    });
    println!("{:<28} {:>10.1?} {:>10.1?} {:>10.1?}", "namespaces, 10 entries each", took[0], took[1], took[2]);
}

fn main() -> Result<(), Problem> {
    lookups();
    changes();
    running::measure()
}
