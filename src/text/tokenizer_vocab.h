// Byte-level BPE tokenizers in the older form of model hubs, without a tokenizer.json: vocab.json
// {"piece": id, ...}, merges.txt (one merge a line, best first) and the added tokens of
// tokenizer_config.json. What the files leave out, how text is normalised and cut into words, follows from
// the class of the tokenizer.
#pragma once
#include <string>
#include <string_view>

namespace mneme {

/// The tokenizer.json that the three files stand for, or "" if `tokenizer_config` names a class other than
/// Qwen2Tokenizer (NFC, the pattern of Qwen 2, no BOS). Throws Error(corrupt) for malformed files.
std::string tokenizer_json_from_vocab(std::string_view vocab_json, std::string_view merges_txt,
                                      std::string_view tokenizer_config);

}  // namespace mneme
