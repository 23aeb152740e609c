//! `WWW-Authenticate` challenges (RFC 9110 §11.6.1).

/// How many challenges one answer may carry; more are not looked at.
const MAX_CHALLENGES: usize = 16;

/// How many parameters one challenge may carry; more are not looked at.
const MAX_PARAMETERS: usize = 32;

/// One challenge: a scheme and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter by its name, which is compared without regard to case. The first of several counts.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Reads all challenges of one header. What cannot be read ends the list.
#[must_use]
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() && challenges.len() <= MAX_CHALLENGES {
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let spaced = after.trim_start_matches([' ', '\t']);
        let value = spaced.strip_prefix('=').filter(|_| challenges.last().is_some());
        if let (Some(value), Some(challenge)) = (value, challenges.last_mut()) {
            let Some((value, after)) = parameter_value(value.trim_start_matches([' ', '\t'])) else {
                break;
            };
            if challenge.parameters.len() < MAX_PARAMETERS {
                challenge.parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges.truncate(MAX_CHALLENGES);
    challenges
}

fn token(text: &str) -> (&str, &str) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
    text.split_at(text.bytes().take_while(|byte| legal(*byte)).count())
}

fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: &[(&str, &[(&str, &str)])]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(scheme, parameters)| Challenge {
                scheme: (*scheme).into(),
                parameters: parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            })
            .collect();
        assert_eq!(parse(header), expected, "{header}");
    }

    #[test]
    fn challenges_are_read() {
        check(
            r#"Bearer realm="https://auth.example.com/token",service="notary",scope="repository:reg.example.com:5000/a/b:pull,push""#,
            &[(
                "bearer",
                &[
                    ("realm", "https://auth.example.com/token"),
                    ("service", "notary"),
                    ("scope", "repository:reg.example.com:5000/a/b:pull,push"),
                ],
            )],
        );
        check(
            r#"Basic realm="a \"b\", c", BEARER Realm = "x" , error=insufficient_scope"#,
            &[("basic", &[("realm", r#"a "b", c"#)]), ("bearer", &[("realm", "x"), ("error", "insufficient_scope")])],
        );
        check("Negotiate", &[("negotiate", &[])]);
        check("", &[]);
        check(r#"Bearer realm="open"#, &[("bearer", &[])]);
        check("=x", &[]);
        check("\u{e9}", &[]);
    }

    #[test]
    fn a_flood_is_cut() {
        assert_eq!(parse(&"Basic,".repeat(100_000)).len(), MAX_CHALLENGES);
        assert_eq!(parse(&format!("Basic {}", "a=b,".repeat(100_000)))[0].parameters.len(), MAX_PARAMETERS);
    }
}
