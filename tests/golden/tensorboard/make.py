"""An event file by TensorBoard's writer: `case.tfevents`, the file that a run writes for the events in `stats.jsonl`.

The first record is the file version at wall time 1e9. The second says that the run restarts at step 301. Each line of
`stats.jsonl` that has values follows as one record, half a second after the line before. The script also writes the
images `*.png` that `stats.jsonl` names: two pixels high, three pixels wide.

Run: pip install -r requirements.txt && python3 make.py
"""

import io
import json
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from tags import SAMPLES, scalars, text_tag

HERE = Path(__file__).parent
CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}


def image(path):
    png = Image.open(path)
    return summary_pb2.Summary.Image(
        height=png.height,
        width=png.width,
        colorspace=CHANNELS[png.mode],
        encoded_image_string=path.read_bytes(),
    )


def text(line):
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        tensor_shape=tensor_shape_pb2.TensorShapeProto(),
        string_val=[line["message"].encode()],
    )
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
    metadata = summary_pb2.SummaryMetadata(plugin_data=plugin)
    return summary_pb2.Summary.Value(tag=text_tag(line), tensor=tensor, metadata=metadata)


def values(line):
    if line["event"] == "sample":
        yield summary_pb2.Summary.Value(tag=SAMPLES, image=image(HERE / line["path"]))
    for tag, value in scalars(line):
        yield summary_pb2.Summary.Value(tag=tag, simple_value=value)
    if line["event"] == "alarm":
        yield text(line)


def main():
    for mode, channels in CHANNELS.items():
        pixels = bytes(i * 10 for i in range(6 * channels))
        Image.frombytes(mode, (3, 2), pixels).save(HERE / f"{mode.lower()}.png")
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    events = [
        event_pb2.Event(wall_time=1e9, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=1e9, step=301, session_log=start),
    ]
    for i, row in enumerate((HERE / "stats.jsonl").read_text().splitlines()):
        line = json.loads(row)
        summary = summary_pb2.Summary(value=values(line))
        if summary.value:
            events.append(event_pb2.Event(wall_time=1e9 + i / 2, step=line["step"], summary=summary))
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
    (HERE / "case.tfevents").write_bytes(file.getvalue())


main()
