//! What a step reads by part of the model and what it takes by op, as a row holds it.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A value of another type counts as missing: one odd figure must not make a file of rows unreadable.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(T::deserialize(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// Bytes that are read, by part of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reads {
    /// Routed experts, each that is needed once.
    pub experts: f64,
    /// Experts that every token passes.
    pub shared_experts: f64,
    /// Dense MLPs.
    pub mlp: f64,
    /// Projections of attention.
    pub attention: f64,
    /// Projections of delta nets, state spaces and convolutions.
    pub recurrent: f64,
    /// Routers.
    pub router: f64,
    /// The output projection.
    pub head: f64,
    /// Keys and values.
    pub kv: f64,
    /// States of recurrences, which are also written.
    pub state: f64,
    /// Norms, rows of the embedding table.
    pub other: f64,
}

impl Reads {
    fn parts(&mut self) -> [&mut f64; 10] {
        let Reads { experts, shared_experts, mlp, attention, recurrent, router, head, kv, state, other } =
            self;
        [experts, shared_experts, mlp, attention, recurrent, router, head, kv, state, other]
    }

    /// All of it.
    pub fn total(mut self) -> f64 {
        self.parts().iter().map(|bytes| **bytes).sum()
    }

    /// An `n`th of it.
    pub fn per(mut self, n: usize) -> Reads {
        self.parts().into_iter().for_each(|bytes| *bytes /= n as f64);
        self
    }
}

/// One kind of op, per step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpTime {
    /// ns during which at least one worker was at it; none of `IDLE`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub wall_ns: Option<f64>,
    /// ns at work, mean of the workers.
    #[serde(deserialize_with = "lenient")]
    pub worker_ns: Option<f64>,
    /// Bytes of weights, keys and values that it must read; none of `IDLE`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub bytes: Option<f64>,
    /// Products of a weight, key or value and another number; none of `IDLE`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub products: Option<f64>,
}

/// Name of the time without work.
pub const IDLE: &str = "idle";

/// Kinds of op by name as in `trace` (in brackets the overhead of dividing work), most time first, then
/// `IDLE`: an object of JSON in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpTimes(pub Vec<(String, OpTime)>);

impl OpTimes {
    /// One of them by its name.
    pub fn get(&self, name: &str) -> Option<&OpTime> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, time)| time)
    }
}

impl Serialize for OpTimes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, time)| (name, time)))
    }
}

impl<'de> Deserialize<'de> for OpTimes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OpTimes, D::Error> {
        struct Ordered;
        impl<'de> Visitor<'de> for Ordered {
            type Value = OpTimes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of ops")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OpTimes, A::Error> {
                let mut times = OpTimes::default();
                while let Some(entry) = map.next_entry()? {
                    times.0.push(entry);
                }
                Ok(times)
            }
        }
        deserializer.deserialize_map(Ordered)
    }
}
