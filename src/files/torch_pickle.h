// The pickle of a torch checkpoint, read without a Python: a machine for the few opcodes of protocol 2 that a
// dictionary of tensors needs, which builds descriptions of tensors and executes nothing.
//
// A pickle is a program for a stack machine that may import any function and call it. Here a GLOBAL opcode
// only selects a row of a fixed table:
//   collections.OrderedDict                  a dictionary
//   torch._utils._rebuild_tensor_v2          (storage, offset, size, stride, requires_grad, hooks)
//   torch._utils._rebuild_parameter          (tensor, requires_grad, hooks)
//   torch.{Float,Half,BFloat16,...}Storage   the type of a storage
// Every other name, every other opcode, and every value of the dictionary that is no tensor is refused by
// name. Numbers are checked when they are used, memory grows only with the bytes read (bounded), nothing
// recurses.
#pragma once
#include <string>
#include <vector>

#include "files/tensor_source.h"

namespace mneme {

struct PickledTensor {
  TensorInfo info;
  std::string storage;         // the archive holds it as data/STORAGE
  uint64_t storage_bytes = 0;  // the size that the pickle expects it to have
  uint64_t offset = 0;         // of the tensor's first byte in its storage
  uint64_t extent = 0;         // bytes from there to the end of its last value; they lie inside the storage
  /// Of a view whose values are not contiguous (a transposed matrix, some columns): in values, one a
  /// dimension, outermost first. Empty: contiguous.
  std::vector<uint64_t> strides;
};

/// The tensors of a pickled dictionary, in its order. `file` names it in messages. Throws Error: corrupt (not
/// a pickle, cut, a contradiction), unsupported (another protocol, anything but tensors, a view that repeats
/// values), limit (more than 32 MiB of pickle or 2 million objects).
std::vector<PickledTensor> read_torch_pickle(Bytes pickle, const std::string& file);

}  // namespace mneme
