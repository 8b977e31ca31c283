//! The command line: four flags and a command.
//!
//! It never reads what they name. Own code, because four flags are fewer lines than a crate's description of them.
#![forbid(unsafe_code)]

use super::load::nearest;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Args {
    /// Run, with the configuration file if one is named.
    Run {
        /// From `--config FILE`.
        config_file: Option<String>,
    },
    /// Print the effective configuration and exit.
    Check {
        /// From `--config FILE`.
        config_file: Option<String>,
    },
    /// Connect to the configured Redis, say what was found, exit.
    CheckUpstream {
        /// From `--config FILE`.
        config_file: Option<String>,
    },
    /// Print [`super::text::help_text`] and exit.
    Help,
    /// Print the version and exit.
    Version,
}

const FLAGS: [&str; 4] = ["--config", "--check", "--help", "--version"];
const CHECK_UPSTREAM: &str = "check-upstream";

impl Args {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// One line that names the argument and the nearest flag.
    pub fn parse(args: &[String]) -> Result<Args, String> {
        let mut config_file = None;
        let mut check = false;
        let mut check_upstream = false;
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let file = match arg.as_str() {
                "--help" | "-h" => return Ok(Args::Help),
                "--version" | "-V" => return Ok(Args::Version),
                "--check" => {
                    check = true;
                    continue;
                }
                CHECK_UPSTREAM => {
                    check_upstream = true;
                    continue;
                }
                "--config" => rest.next().map(String::as_str),
                other => match other.strip_prefix("--config=") {
                    Some(file) => Some(file),
                    None if !other.starts_with('-') => {
                        return Err(format!(
                            "{other} is not an argument; a file is named with --config FILE, and the one command is \
                             {CHECK_UPSTREAM} (see --help)"
                        ));
                    }
                    None => {
                        let nearest = nearest(other, FLAGS.into_iter()).expect("there are flags");
                        return Err(format!(
                            "{other} is not an argument; the nearest is {nearest} (see --help)"
                        ));
                    }
                },
            };
            let Some(file) = file.filter(|file| !file.is_empty()) else {
                return Err("--config wants the name of a file after it".to_string());
            };
            if config_file.replace(file.to_string()).is_some() {
                return Err("--config is given twice; one file is read".to_string());
            }
        }
        match (check, check_upstream) {
            (true, true) => {
                Err("--check connects nowhere: give it or check-upstream, not both".to_string())
            }
            (true, false) => Ok(Args::Check { config_file }),
            (false, true) => Ok(Args::CheckUpstream { config_file }),
            (false, false) => Ok(Args::Run { config_file }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], expected: Result<Args, &str>) {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        assert_eq!(
            Args::parse(&args),
            expected.map_err(str::to_string),
            "{args:?}"
        );
    }

    #[test]
    fn the_flags_and_the_command_mean_what_help_says() {
        let file = || Some("env.local".to_string());
        check(&[], Ok(Args::Run { config_file: None }));
        check(
            &["--config", "env.local"],
            Ok(Args::Run {
                config_file: file(),
            }),
        );
        check(
            &["--config=env.local"],
            Ok(Args::Run {
                config_file: file(),
            }),
        );
        check(
            &["--check", "--config", "env.local"],
            Ok(Args::Check {
                config_file: file(),
            }),
        );
        check(
            &["--config", "env.local", "--check"],
            Ok(Args::Check {
                config_file: file(),
            }),
        );
        check(
            &["check-upstream"],
            Ok(Args::CheckUpstream { config_file: None }),
        );
        check(
            &["check-upstream", "--config", "env.local"],
            Ok(Args::CheckUpstream {
                config_file: file(),
            }),
        );
        check(
            &["check-upstream", "--check"],
            Err("--check connects nowhere: give it or check-upstream, not both"),
        );
        check(&["--help"], Ok(Args::Help));
        check(&["--version"], Ok(Args::Version));
    }

    #[test]
    fn an_argument_that_is_none_is_refused_with_the_nearest() {
        check(
            &["--chek"],
            Err("--chek is not an argument; the nearest is --check (see --help)"),
        );
        check(
            &["env.local"],
            Err(
                "env.local is not an argument; a file is named with --config FILE, and the one command is \
                 check-upstream (see --help)",
            ),
        );
        check(
            &["--config"],
            Err("--config wants the name of a file after it"),
        );
        check(
            &["--config="],
            Err("--config wants the name of a file after it"),
        );
        check(
            &["--config", "a", "--config", "b"],
            Err("--config is given twice; one file is read"),
        );
    }
}
