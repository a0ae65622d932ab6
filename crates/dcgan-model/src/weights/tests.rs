//! Tests of weights in memory and in safetensors files.

use super::*;
