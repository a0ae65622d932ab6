//! A batch of feature maps in host memory: what goes into a network and comes out of it.

use crate::pool::{BufferPool, PooledBuffer};
use crate::{MapShape, OpsError, Result};
use candle_core::{DType, Device, Storage, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// Values that one task copies at least.
const COPY_LEN: usize = 64 * 1024;

/// Images or feature maps of a batch: f32, channels-last `(n, h, w, c)`, contiguous, in a pooled buffer.
///
/// A clone shares the values, which never change; the buffer returns to its pool when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Maps {
    n: usize,
    shape: MapShape,
    values: Arc<PooledBuffer>,
}

impl Maps {
    /// `n` maps with the values `(n, h, w, c)`.
    ///
    /// # Errors
    /// [`OpsError::Shape`] where the number of values is another.
    pub fn new(values: impl Into<PooledBuffer>, n: usize, shape: MapShape) -> Result<Self> {
        let values = values.into();
        if n.checked_mul(shape.len()) != Some(values.len()) {
            return Err(OpsError::Shape {
                what: "the buffer".into(),
                expected: format!("({n}, {}, {}, {}) values", shape.height, shape.width, shape.channels),
                found: vec![values.len()],
            });
        }
        Ok(Self { n, shape, values: Arc::new(values) })
    }

    /// `n` maps whose values are copied into a buffer of `pool`, on all threads.
    pub(crate) fn copied(values: &[f32], n: usize, shape: MapShape, pool: &BufferPool) -> Self {
        debug_assert_eq!(values.len(), n * shape.len());
        let mut copy = pool.take(values.len());
        let parts = copy.par_chunks_mut(COPY_LEN).zip(values.par_chunks(COPY_LEN));
        parts.for_each(|(copy, values)| copy.copy_from_slice(values));
        Self { n, shape, values: Arc::new(copy) }
    }

    /// Rows `(n, len)` as maps of one pixel with `len` channels: latent vectors, logits, one-hot labels.
    ///
    /// # Errors
    /// [`OpsError::Shape`] where the values are not whole rows.
    pub fn rows(values: impl Into<PooledBuffer>, len: usize) -> Result<Self> {
        let values = values.into();
        let n = values.len() / len.max(1);
        Self::new(values, n, MapShape::new(len, 1, 1))
    }

    /// Labels below `classes` as one-hot rows `(n, classes)`.
    ///
    /// # Errors
    /// [`OpsError::Label`].
    pub fn one_hot(labels: &[u32], classes: usize) -> Result<Self> {
        let mut values = vec![0.0; labels.len() * classes];
        for (index, &label) in labels.iter().enumerate() {
            let class = usize::try_from(label).ok().filter(|class| *class < classes);
            let class = class.ok_or(OpsError::Label { index, label, classes })?;
            values[index * classes + class] = 1.0;
        }
        Self::new(values, labels.len(), MapShape::new(classes, 1, 1))
    }

    /// The values of a tensor `(n, c, h, w)` on any device and of any memory layout; without a copy to reorder where
    /// the memory is channels-last already.
    ///
    /// # Errors
    /// Another rank; those of candle.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let (n, channels, height, width) = tensor.dims4()?;
        let host = tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let host = host.permute((0, 2, 3, 1))?.contiguous()?;
        let (storage, layout) = host.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            return Err(candle_core::Error::Msg("the tensor is not on the CPU".into()).into());
        };
        let values = &storage.as_slice::<f32>()?[layout.start_offset()..][..layout.shape().elem_count()];
        Ok(Self::copied(values, n, MapShape::new(channels, height, width), &BufferPool::new()))
    }

    /// A tensor `(n, c, h, w)` on the CPU whose memory is channels-last.
    ///
    /// # Errors
    /// Those of candle.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let MapShape { channels, height, width } = self.shape;
        let tensor = Tensor::from_slice(&self.values, (self.n, height, width, channels), &Device::Cpu)?;
        Ok(tensor.permute((0, 3, 1, 2))?)
    }

    /// Maps of the batch.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Shape of one map.
    pub fn shape(&self) -> MapShape {
        self.shape
    }

    /// The values, `(n, h, w, c)`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values of one map, `(h, w, c)`.
    ///
    /// # Panics
    /// Where `index` is not below [`Maps::n`].
    pub fn map(&self, index: usize) -> &[f32] {
        &self.values[index * self.shape.len()..][..self.shape.len()]
    }

    /// Refuses another batch size or shape.
    pub(crate) fn check(&self, what: &str, n: usize, shape: MapShape) -> Result<()> {
        if self.n == n && self.shape == shape {
            return Ok(());
        }
        Err(OpsError::Shape {
            what: what.into(),
            expected: format!("({n}, {}, {}, {})", shape.channels, shape.height, shape.width),
            found: vec![self.n, self.shape.channels, self.shape.height, self.shape.width],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_maps() {
        let shape = MapShape::new(2, 3, 4);
        let values: Vec<f32> = (0..48).map(|i| i as f32).collect();
        let maps = Maps::new(values.clone(), 2, shape).unwrap();
        let tensor = maps.to_tensor().unwrap();
        assert_eq!(tensor.dims(), [2, 2, 3, 4]);
        // Channel 1 of row 2, column 3 of the second map is the last value.
        let last = tensor.get(1).unwrap().get(1).unwrap().get(2).unwrap().get(3).unwrap();
        assert_eq!(last.to_scalar::<f32>().unwrap(), 47.0);
        for tensor in [tensor.clone(), tensor.contiguous().unwrap(), tensor.to_dtype(DType::F64).unwrap()] {
            assert_eq!(Maps::from_tensor(&tensor).unwrap().values(), values);
        }
        assert_eq!(maps.map(1), &values[24..]);
        assert!(Maps::new(values, 3, shape).is_err());
        assert_eq!(Maps::one_hot(&[2, 0], 3).unwrap().values(), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        assert!(matches!(Maps::one_hot(&[3], 3), Err(OpsError::Label { index: 0, label: 3, classes: 3 })));
    }

    /// Safe code once read freed memory through clones of a tensor whose storage was recycled. Maps own their buffer:
    /// it is recycled when nothing can read it any more.
    #[test]
    fn clones_keep_their_values_while_the_pool_is_used() {
        let (pool, shape) = (BufferPool::new(), MapShape::new(1, 128, 128));
        let first = Maps::copied(&vec![1.0; shape.len()], 1, shape, &pool);
        let (clone, tensor) = (first.clone(), first.to_tensor().unwrap());
        drop(first);
        let second = Maps::copied(&vec![2.0; shape.len()], 1, shape, &pool);
        assert!(clone.values().iter().all(|&value| value == 1.0));
        drop((clone, second));
        let third = pool.take(shape.len());
        assert!(third[0] > 0.0, "the buffers were not recycled");
        let product = tensor.flatten_all().unwrap().reshape((128, 128)).unwrap();
        let product = product.matmul(&product).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(product, 128.0 * 128.0 * 128.0);
    }
}
