"""A GGUF file again with another ModelConfig (docs/config.md): the metadata string `mneme.config` is set, everything else is
copied. Any model with full attention can so be run with windows or with sparse attention, which have the same tensors."""
import json
import shutil
import struct
import subprocess

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of the metadata types with a fixed size
STRING, ARRAY = 8, 9
KEY = b"mneme.config"


class Cursor:
    def __init__(self, file):
        self.file = file

    def take(self, size):
        data = self.file.read(size)
        if len(data) != size:
            raise ValueError("the GGUF file ends in its header")
        return data

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]

    def string(self):
        return self.take(self.number("Q"))

    def skip_value(self, kind):
        """Skips a metadata value; returns it if it is a whole number."""
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            kind, count = self.number("I"), self.number("Q")
            if kind in SIZES:
                self.take(SIZES[kind] * count)
            else:
                for _ in range(count):
                    self.skip_value(kind)
        elif kind in SIZES:
            return int.from_bytes(self.take(SIZES[kind]), "little")
        else:
            raise ValueError(f"unknown metadata type {kind}")


def config_of(mneme, model):
    """The ModelConfig of a model as the program sees it."""
    ran = subprocess.run([str(mneme), "inspect", str(model), "--json", "--quiet"], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)["config"]


def with_mixers(config, change):
    """A copy of the config in which change(layer index, mixer) has edited every mixer."""
    config = json.loads(json.dumps(config))
    layers = []
    for layer in config["layers"]:
        layers += [json.loads(json.dumps(layer)) for _ in range(layer.pop("repeat", 1))]
    for index, layer in enumerate(layers):
        mixer = {**config.get("defaults", {}).get("mixer", {}), **layer.get("mixer", {})}
        change(index, mixer)
        layer["mixer"] = mixer
    config["layers"] = layers
    return config


def write_with_config(source, target, config):
    with open(source, "rb") as file:
        cursor = Cursor(file)
        if cursor.take(4) != b"GGUF" or cursor.number("I") not in (2, 3):
            raise ValueError(f"{source} is not a GGUF file of version 2 or 3")
        tensors, pairs = cursor.number("Q"), cursor.number("Q")
        alignment, kept = 32, []
        for _ in range(pairs):
            begin = file.tell()
            key, kind = cursor.string(), cursor.number("I")
            value = cursor.skip_value(kind)
            if key == b"general.alignment":
                alignment = value
            if key != KEY:
                kept.append((begin, file.tell()))
        begin_infos = file.tell()
        for _ in range(tensors):
            cursor.string()
            cursor.take(8 * cursor.number("I") + 4 + 8)
        end_infos = file.tell()
        text = json.dumps(config).encode()
        with open(target, "wb") as out:
            out.write(b"GGUF" + struct.pack("<IQQ", 3, tensors, len(kept) + 1))
            for begin, end in [*kept]:
                file.seek(begin)
                out.write(file.read(end - begin))
            out.write(struct.pack("<Q", len(KEY)) + KEY + struct.pack("<IQ", STRING, len(text)) + text)
            file.seek(begin_infos)
            out.write(file.read(end_infos - begin_infos))
            out.write(bytes(-out.tell() % alignment))
            file.seek(end_infos + -end_infos % alignment)
            shutil.copyfileobj(file, out, 1 << 24)
