// A checkpoint without a file: names and shapes, and bytes where a test needs them.
#pragma once
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "files/tensor_source.h"
#include "mneme/error.h"
#include "mneme/model_config.h"
#include "model/tensor_names.h"

namespace mneme::testing_fakes {

class FakeTensors : public TensorSource {
 public:
  FakeTensors() = default;
  /// Every tensor that the config asks for, without bytes.
  FakeTensors(const ModelConfig& config, NameStyle style, std::string_view prefix = "model.") {
    for (const ExpectedTensor& tensor : expected_tensors(config))
      add(style == NameStyle::gguf ? tensor.name : hf_tensor_name(config, tensor.name, prefix), tensor.shape);
  }

  FakeTensors& add(const std::string& name, std::vector<uint64_t> shape, std::vector<float> values = {}) {
    TensorInfo info{name, DType::f32, std::move(shape), 0};
    info.bytes = info.values() * sizeof(float);
    erase(name);
    infos_.push_back(std::move(info));
    std::vector<std::byte> bytes(values.size() * sizeof(float));
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    bytes_[name] = std::move(bytes);
    return *this;
  }
  FakeTensors& erase(const std::string& name) {
    std::erase_if(infos_, [&](const TensorInfo& info) { return info.name == name; });
    return *this;
  }

  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(std::string_view name) const override {
    for (const TensorInfo& info : infos_)
      if (info.name == name) return &info;
    return nullptr;
  }
  Bytes data(const TensorInfo& tensor) const override { return bytes_.at(tensor.name); }
  void release(const TensorInfo&) const override {}
  uint64_t file_bytes() const override { return 0; }
  std::vector<fs::path> paths() const override { return {}; }

 private:
  std::vector<TensorInfo> infos_;
  std::map<std::string, std::vector<std::byte>> bytes_;
};

/// Runs `f` and returns the message of the Error it throws; fails the test if it throws none.
template <class F>
Error error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::internal, "no error was thrown");
}

}  // namespace mneme::testing_fakes
