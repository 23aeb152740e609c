//! Children are folded into their owners: what a Deployment has is told once, not again for each of its pods.

use std::collections::HashMap;

use countersign_policy::{ContainerImage, Reviewed, Workload};

use super::object::Head;

/// The objects that were seen so far and may own others, with their images.
///
/// That an object names an owner proves nothing, so the webhook does not rest on it. For a report it is enough: what is folded is only
/// an image that the owner has at the same place, and that is told with the owner.
#[derive(Debug, Default)]
pub(super) struct Owners {
    seen: HashMap<(String, String), Reviewed>,
}

/// What is left of an object once its owner's images are taken off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Its own images: all of them, if no owner was seen.
    pub(super) images: Vec<ContainerImage>,
    /// Whether its owner was seen.
    pub(super) is_child: bool,
}

impl Owners {
    /// Takes in an object. Owners must come before what they own.
    pub(super) fn take(&mut self, head: &Head, workload: &Workload) -> Left {
        let place = |uid: &str| (head.namespace.clone(), uid.to_owned());
        let owner = head.owner.as_deref().and_then(|owner| self.seen.get(&place(owner)));
        let left = match owner {
            Some(owner) => Left { images: owner.changed(workload), is_child: true },
            None => Left { images: workload.images.clone(), is_child: false },
        };
        // Pods own no pods.
        if !head.uid.is_empty() && head.kind.rank() < 3 {
            self.seen.insert(place(&head.uid), Reviewed::of(workload));
        }
        left
    }
}
