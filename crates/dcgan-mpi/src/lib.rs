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
mod affinity;
mod launcher;
#[cfg(feature = "mpi")]
mod mpi_thread;
mod world;

pub use launcher::Launcher;
pub use world::{World, WorldError};
