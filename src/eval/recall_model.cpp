// The only part of the recall evaluations that knows sessions.
#include <algorithm>

#include "core/fail.h"
#include "engine/session_sequence.h"
#include "eval/recall.h"

namespace mneme {

RecallResult recall(const std::shared_ptr<const Model>& model, const RecallOptions& options,
                    SessionOptions session) {
  uint64_t longest = 0;
  for (const uint64_t length : options.lengths) longest = std::max(longest, length);
  require(longest <= UINT32_MAX, ErrorCode::limit, "{} tokens are more than a session can hold", longest);
  session.max_context = std::max<uint32_t>(session.max_context, static_cast<uint32_t>(longest));
  SessionRunner runner(model, session);
  return recall(runner, options);
}

}  // namespace mneme
