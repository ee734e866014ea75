#include "engine/generation.h"
#include "engine/session_sequence.h"

namespace mneme {

GenerateResult generate(Session& session, const GenerateRequest& request) {
  SessionSequence sequence(session);
  const Model& model = session.model();
  return generate(sequence, model.has_tokenizer() ? &model.tokenizer() : nullptr, request);
}

}  // namespace mneme
