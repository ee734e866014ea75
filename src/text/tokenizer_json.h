// Hugging Face's tokenizer.json (the format of the `tokenizers` package) and the files around it.
#pragma once
#include <string_view>

#include "core/json.h"
#include "text/tokenizer_spec.h"

namespace mneme {

/// Reads tokenizer.json; the other two texts may be empty. From tokenizer_config.json come BOS, EOS and the
/// chat template, from generation_config.json further ends of a turn. Throws Error(corrupt) with the place
/// for malformed files, Error(unsupported) naming the component that this version does not know.
TokenizerSpec spec_from_tokenizer_json(std::string_view tokenizer_json,
                                       std::string_view tokenizer_config = {},
                                       std::string_view generation_config = {});

// The parts of a tokenizer.json, each appended to the spec. `json` may be null.
void read_normalizer(const Json& json, TokenizerSpec& spec);
void read_pre_tokenizer(const Json& json, TokenizerSpec& spec);
void read_post_processor(const Json& json, TokenizerSpec& spec);
void read_decoder(const Json& json, TokenizerSpec& spec);

// Members of a JSON object with a type check; `what` names the object in messages.
std::string json_type_of(const Json& object, std::string_view what);
std::string json_string(const Json& object, std::string_view key, std::string_view what);
bool json_bool(const Json& object, std::string_view key, bool fallback, std::string_view what);
int64_t json_int(const Json& object, std::string_view key, std::string_view what);
const Json& json_array(const Json& object, std::string_view key, std::string_view what);

}  // namespace mneme
