//! What the operator wants: host configuration, flags and policy brought together.

use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::CommandError;
use crate::{
    compile::Meta,
    policy::{
        Known, load_host_config, load_outline, load_policy,
        model::{HostConfig, InterfaceConfig, Outline, Policy, Rule},
    },
};

/// Where the wishes are written: files, and the flags that stand in for them or override them.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Host configuration named by a flag.
    pub config: Option<PathBuf>,
    /// Host configuration read if there is one.
    pub default_config: PathBuf,
    /// Policy named by a flag.
    pub policy: Option<PathBuf>,
    /// Interfaces named by flags; they replace those of the configuration.
    pub interfaces: Vec<InterfaceConfig>,
    /// Served prefixes named by flags; they replace those of the configuration.
    pub serves: Vec<IpNet>,
}

impl Sources {
    /// The file that the host configuration is read from, if there is one.
    pub fn config_path(&self) -> Option<&Path> {
        match &self.config {
            Some(path) => Some(path),
            None => Some(self.default_config.as_path()).filter(|path| path.exists()),
        }
    }

    /// The host configuration with the flags applied.
    ///
    /// # Errors
    ///
    /// The file was refused.
    pub fn host(&self) -> Result<HostConfig, CommandError> {
        let mut host = match self.config_path() {
            Some(path) => load_host_config(path)?,
            None => HostConfig::default(),
        };
        if let Some(policy) = &self.policy {
            host.policy = Some(policy.clone());
        }
        if !self.interfaces.is_empty() {
            host.interfaces.clone_from(&self.interfaces);
        }
        if !self.serves.is_empty() {
            host.serves = Some(self.serves.clone());
        }
        Ok(host)
    }

    /// The interfaces of the configuration; none if that is refused.
    pub fn interfaces(&self) -> Vec<InterfaceConfig> {
        self.host().map(|host| host.interfaces).unwrap_or_default()
    }

    /// The policy file of a configuration.
    ///
    /// # Errors
    ///
    /// None is named.
    pub fn policy_path(&self, host: &HostConfig) -> Result<PathBuf, CommandError> {
        host.policy.clone().ok_or_else(|| {
            CommandError::Usage(format!(
                "no policy is named: give `--policy FILE`, or `policy = \"FILE\"` in {}",
                self.config
                    .as_deref()
                    .unwrap_or(&self.default_config)
                    .display()
            ))
        })
    }

    /// Everything, read anew.
    ///
    /// # Errors
    ///
    /// A file was refused or is not named.
    pub fn load(&self) -> Result<Desired, CommandError> {
        let host = self.host()?;
        let path = self.policy_path(&host)?;
        let policy = load_policy(&path)?;
        let policy_path = std::path::absolute(&path).unwrap_or(path);
        Ok(Desired {
            host,
            policy,
            policy_path,
        })
    }

    /// Everything, but without reading lists that are known from the generation in place.
    ///
    /// # Errors
    ///
    /// As [`Sources::load`].
    pub fn outline(&self, in_place: Option<&Meta>) -> Result<Wanted, CommandError> {
        let host = self.host()?;
        let path = self.policy_path(&host)?;
        let rules = in_place.iter().flat_map(|meta| &meta.rules);
        let known = rules.map(|rule| (rule.id.as_str(), &rule.lists)).collect();
        let outline = match load_outline(&path, &known) {
            // All that is wrong with it is found only by reading it all.
            Err(_) if !known.is_empty() => load_outline(&path, &Known::new())?,
            outline => outline?,
        };
        let policy_path = std::path::absolute(&path).unwrap_or(path);
        Ok(Wanted {
            host,
            outline,
            policy_path,
            policy: None,
        })
    }
}

/// What is to be enforced.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Host configuration with the flags applied.
    pub host: HostConfig,
    /// The policy.
    pub policy: Policy,
    /// The file it was read from, absolute.
    pub policy_path: PathBuf,
}

/// What is to be enforced, as far as it was read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Host configuration with the flags applied.
    pub host: HostConfig,
    /// The policy; empty once all of it was asked for.
    pub outline: Outline,
    /// The file it was read from, absolute.
    pub policy_path: PathBuf,
    policy: Option<Policy>,
}

impl Wanted {
    /// The whole policy: what was not read is read now.
    ///
    /// # Errors
    ///
    /// A file was refused.
    pub fn policy(&mut self) -> Result<&Policy, CommandError> {
        if self.policy.is_none() {
            let outline = std::mem::take(&mut self.outline);
            self.policy = Some(match outline.into_policy() {
                Ok(policy) => policy,
                Err(_) => load_policy(&self.policy_path)?,
            });
        }
        Ok(self.policy.get_or_insert_default())
    }

    /// The rules with the lists that were read.
    pub fn read_rules(&self) -> Vec<&Rule> {
        match &self.policy {
            Some(policy) => policy.rules.iter().collect(),
            None => {
                let read = self.outline.rules.iter().filter(|rule| rule.is_read);
                read.map(|outlined| &outlined.rule).collect()
            }
        }
    }

    /// Digest of the policy.
    pub fn digest(&self) -> &str {
        match &self.policy {
            Some(policy) => &policy.digest,
            None => &self.outline.digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::AttachMode;

    #[test]
    fn flags_stand_in_for_a_missing_configuration() {
        let sources = Sources {
            default_config: "/nonexistent/edgefilter.toml".into(),
            interfaces: vec![InterfaceConfig {
                name: "eth0".into(),
                mode: AttachMode::Generic,
            }],
            serves: vec!["192.0.2.0/24".parse().unwrap()],
            ..Sources::default()
        };
        let host = sources.host().unwrap();
        assert_eq!(host.interfaces, sources.interfaces);
        assert_eq!(host.serves, Some(sources.serves.clone()));
        let error = sources.policy_path(&host).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("/nonexistent/edgefilter.toml"),
            "{error}"
        );
    }

    #[test]
    fn a_configuration_named_by_a_flag_must_exist() {
        let sources = Sources {
            config: Some("/nonexistent/edgefilter.toml".into()),
            ..Sources::default()
        };
        assert_eq!(sources.host().unwrap_err().exit_code(), 3);
    }
}
