//! A graph in the making: nodes, constants, and names that are not taken.

use super::schema::{
    AttributeProto, Dimension, FLOAT, GraphProto, INT64, NodeProto, TensorProto, TensorShapeProto,
    TensorType, TypeProto, ValueInfoProto,
};

/// The name of a value.
pub(super) type Value = String;

#[derive(Debug, Default)]
pub(super) struct Graph {
    proto: GraphProto,
}

impl Graph {
    pub(super) fn new(name: &str) -> Self {
        Self { proto: GraphProto { name: name.to_owned(), ..GraphProto::default() } }
    }

    pub(super) fn finish(self) -> GraphProto {
        self.proto
    }

    /// An input with a batch axis in front of `shape`.
    pub(super) fn input(&mut self, name: &str, element: i32, shape: &[usize], doc: &str) -> Value {
        self.proto.input.push(value_info(name, element, shape, doc));
        name.to_owned()
    }

    /// Makes `value` an output with this name and a batch axis in front of `shape`.
    pub(super) fn output(&mut self, value: Value, name: &str, element: i32, shape: &[usize], doc: &str) {
        self.named("Identity", &[value], name.to_owned(), Vec::new());
        self.proto.output.push(value_info(name, element, shape, doc));
    }

    /// A node named after its output; returns the output.
    pub(super) fn node(
        &mut self,
        operator: &str,
        inputs: &[Value],
        attributes: Vec<AttributeProto>,
    ) -> Value {
        let output = format!("{}_{}", operator.to_lowercase(), self.proto.node.len());
        self.named(operator, inputs, output, attributes)
    }

    fn named(
        &mut self,
        operator: &str,
        inputs: &[Value],
        output: Value,
        attribute: Vec<AttributeProto>,
    ) -> Value {
        self.proto.node.push(NodeProto {
            input: inputs.to_vec(),
            output: vec![output.clone()],
            name: output.clone(),
            op_type: operator.to_owned(),
            attribute,
        });
        output
    }

    /// A constant of f32 values.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Value {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, FLOAT, raw_data)
    }

    /// A constant of integers.
    pub(super) fn integers(&mut self, values: &[i64]) -> Value {
        let name = format!("integers_{}", self.proto.initializer.len());
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(&name, &[values.len()], INT64, raw_data)
    }

    fn constant(&mut self, name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> Value {
        let dims = shape.iter().map(|size| integer(*size)).collect();
        self.proto.initializer.push(TensorProto { dims, data_type, name: name.to_owned(), raw_data });
        name.to_owned()
    }

    /// A value with another shape; -1 is the batch.
    pub(super) fn reshape(&mut self, value: Value, shape: &[i64]) -> Value {
        let shape = self.integers(shape);
        self.node("Reshape", &[value, shape], Vec::new())
    }

    /// A binary operation with one number.
    pub(super) fn scalar(&mut self, operator: &str, value: Value, number: f32) -> Value {
        let name = format!("number_{}", self.proto.initializer.len());
        let number = self.floats(&name, &[], &[number]);
        self.node(operator, &[value, number], Vec::new())
    }
}

/// Sizes are those of models, far below 2^63.
pub(super) fn integer(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn value_info(name: &str, elem_type: i32, shape: &[usize], doc: &str) -> ValueInfoProto {
    let batch = Dimension { dim_value: None, dim_param: Some("n".to_owned()) };
    let size = |size: &usize| Dimension { dim_value: Some(integer(*size)), dim_param: None };
    let dim = std::iter::once(batch).chain(shape.iter().map(size)).collect();
    let tensor_type = Some(TensorType { elem_type, shape: Some(TensorShapeProto { dim }) });
    let r#type = Some(TypeProto { tensor_type });
    ValueInfoProto { name: name.to_owned(), r#type, doc_string: doc.to_owned() }
}

pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), f: value, r#type: 1, ..AttributeProto::default() }
}

pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i: value, r#type: 2, ..AttributeProto::default() }
}

pub(super) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        s: value.as_bytes().to_vec(),
        r#type: 3,
        ..AttributeProto::default()
    }
}

pub(super) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|value| integer(*value)).collect();
    AttributeProto { name: name.to_owned(), ints, r#type: 7, ..AttributeProto::default() }
}
