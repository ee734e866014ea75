#include <algorithm>

#include "engine/session_sequence.h"
#include "eval/perplexity.h"

namespace mneme {

PerplexityResult perplexity(const std::shared_ptr<const Model>& model, const std::filesystem::path& file,
                            const PerplexityOptions& options, const SessionOptions& session) {
  SessionOptions window = session;
  if (window.max_context == 0)
    window.max_context = std::min(model->config().context, std::max(options.ctx, 1u));
  SessionRunner runner(model, window);
  return perplexity(runner, stream_file(model->tokenizer(), file), options);
}

}  // namespace mneme
