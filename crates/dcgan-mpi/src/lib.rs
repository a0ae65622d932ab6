//! The processes of a run that a launcher started together (`mpirun`, `srun`), as a
//! [`dcgan_ops::ProcessGroup`] over MPI.
//!
//! Without the feature `mpi`, or without a launcher, [`World::start`] is the group of one process.
//!
//! ```
//! let world = dcgan_mpi::World::start()?;
//! assert_eq!((world.group().rank(), world.group().size()), (0, 1));
//! # Ok::<(), dcgan_mpi::WorldError>(())
//! ```

#[cfg(any(feature = "mpi", test))]
#[cfg_attr(not(feature = "mpi"), allow(dead_code, reason = "tested without MPI as well"))]
mod affinity;
#[cfg(feature = "cli")]
pub mod command;
mod launcher;
#[cfg(feature = "mpi")]
mod mpi_thread;
#[cfg(feature = "cli")]
mod relaunch;
mod world;

pub use launcher::{INTERRUPTED, Launcher, STOP_AT_EOF, mpirun, wait_or_save};
#[cfg(feature = "cli")]
pub use relaunch::{relaunch_if_asked, stop_at_eof};
pub use world::{World, WorldError};

/// Whether this build can join other processes: it has the feature `mpi`.
pub const IS_BUILT: bool = cfg!(feature = "mpi");
