//! A review as `JUnit` XML, which pipelines show: a test suite for each object, a test case for each image.

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{ImageReport, ObjectReport, Report};

/// The report; a denial is a failure, and what could not be decided an error.
pub(super) fn report(report: &Report) -> anyhow::Result<String> {
    let mut all = quick_junit::Report::new("countersign review");
    all.add_test_suites(report.objects.iter().map(suite));
    Ok(all.to_string()?)
}

fn suite(object: &ObjectReport) -> TestSuite {
    let title = clean(&format!("{} {}/{}", object.kind, object.namespace, object.name));
    let mut suite = TestSuite::new(title.clone());
    suite.add_test_cases(object.images.iter().map(|image| case(&title, image)));
    suite
}

fn case(title: &str, image: &ImageReport) -> TestCase {
    let failed = |kind| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(clean(image.reason.as_deref().unwrap_or_default()));
        status
    };
    let status = match (image.allowed, image.undecided) {
        (true, _) => TestCaseStatus::success(),
        (false, true) => failed(NonSuccessKind::Error),
        (false, false) => failed(NonSuccessKind::Failure),
    };
    let mut case = TestCase::new(clean(&format!("{} {}", image.path, image.image)), status);
    case.set_classname(title);
    case
}

/// Without the two characters that XML has no way to write and the library leaves as they are.
fn clean(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_is_a_case() {
        let image = |name: &str, allowed, undecided, reason: Option<&str>| ImageReport {
            path: "containers/web".to_owned(),
            image: name.to_owned(),
            allowed,
            undecided,
            pinned: None,
            mode: None,
            reason: reason.map(str::to_owned),
            policy: None,
        };
        let object = ObjectReport {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: "n".to_owned(),
            name: "a<b&\u{1}\u{fffe}".to_owned(),
            allowed: false,
            undecided: false,
            images: vec![
                image("good", true, false, None),
                image("bad", false, false, Some("Deny \"bad\", <no> signature")),
                image("late", false, true, Some("no answer")),
            ],
        };
        let text = report(&Report { allowed: false, undecided: false, objects: vec![object] }).unwrap();
        for part in [
            r#"tests="3" skipped="0" failures="1" errors="1""#,
            "<testsuite name=\"Pod n/a&lt;b&amp;\u{fffd}\" ",
            "<testcase name=\"containers/web good\" classname=\"Pod n/a&lt;b&amp;\u{fffd}\"/>",
            r#"<failure message="Deny &quot;bad&quot;, &lt;no&gt; signature"/>"#,
            r#"<error message="no answer"/>"#,
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
