// A process that serves experts to the one that leads (expert_group.h): it holds its share of the experts of
// every layer and no other weight.
#pragma once
#include <memory>
#include <string>

#include "model/model_impl.h"

namespace mneme {

class ExpertServer {
 public:
  /// options.expert_group: of a process that does not lead. Throws what Model::load throws, and
  /// Error(mismatch) for a model whose experts cannot be divided among so many processes.
  ExpertServer(const std::string& path, const LoadOptions& options);
  ~ExpertServer();

  /// Answers until the leading process has finished. Throws Error: network when a process is lost, the error
  /// of one that gave up, corrupt for a request that makes no sense.
  void serve();
  /// Bytes of the weights it holds.
  uint64_t resident_bytes() const noexcept { return model_->bytes.resident; }

 private:
  MessageBytes answer(const Message& message);

  std::unique_ptr<ModelImpl> model_;
  std::vector<std::vector<std::unique_ptr<Stage>>> stages_;  // [layer]
  Workspace workspace_;
  std::vector<TokenId> ids_;  // as many as a request has rows; stages count them
};

}  // namespace mneme
