// complete MODEL TEXT [TOKENS]: continues a text with a model, greedily, through the public API only.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "mneme/engine.h"
#include "mneme/error.h"
#include "mneme/model.h"
#include "mneme/session.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: complete MODEL TEXT [TOKENS]\n");
    return 2;
  }
  try {
    const auto model = mneme::Model::load(argv[1]);
    mneme::Session session(model);

    mneme::GenerateRequest request;
    request.prompt = model->tokenizer().encode(argv[2]);
    request.max_tokens = argc > 3 ? static_cast<uint32_t>(std::atoi(argv[3])) : 32;
    request.sampling.temperature = 0;
    request.on_text = [](std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
      return true;
    };
    const mneme::GenerateResult result = mneme::generate(session, request);
    std::printf("\n[%llu tokens, %.1f a second]\n", static_cast<unsigned long long>(result.generated_tokens),
                result.tokens_per_second);
  } catch (const mneme::Error& error) {
    std::fprintf(stderr, "complete: %s\n", error.what());
    return 1;
  }
}
