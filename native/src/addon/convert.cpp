#include "convert.h"

#include <algorithm>
#include <map>

#include "job.h"

namespace tempora::addon {

void throw_invalid(Napi::Env env, const std::string& message) {
  Napi::TypeError error = Napi::TypeError::New(env, message);
  error.Set("code", Napi::String::New(env, code::kInvalidArgument));
  throw error;
}

double number_from(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) throw_invalid(object.Env(), std::string(name) + " is not a number");
  return value.As<Napi::Number>().DoubleValue();
}

std::int32_t int_from(const Napi::Object& object, const char* name) {
  const double value = number_from(object, name);
  if (!(value >= -2147483648.0 && value <= 2147483647.0)) {
    throw_invalid(object.Env(), std::string(name) + " is out of range");
  }
  return static_cast<std::int32_t>(value);
}

bool bool_from(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsBoolean()) throw_invalid(object.Env(), std::string(name) + " is not a boolean");
  return value.As<Napi::Boolean>().Value();
}

Napi::Object object_from(const Napi::Value& value, const char* name) {
  if (!value.IsObject()) throw_invalid(value.Env(), std::string(name) + " is not an object");
  return value.As<Napi::Object>();
}

DType dtype_from(const Napi::Value& value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name != "f32" && name != "bf16") throw_invalid(value.Env(), "dtype must be f32 or bf16");
  return name == "f32" ? DType::f32 : DType::bf16;
}

namespace {

WeightFormat gguf_format_from(const Napi::Value& value) {
  static const std::map<std::string, WeightFormat> formats = {
      {"Q4_0", WeightFormat::q4_0}, {"Q4_1", WeightFormat::q4_1}, {"Q5_0", WeightFormat::q5_0},
      {"Q5_1", WeightFormat::q5_1}, {"Q8_0", WeightFormat::q8_0}, {"Q4_K", WeightFormat::q4_k},
      {"Q5_K", WeightFormat::q5_k}, {"Q6_K", WeightFormat::q6_k}};
  const auto found = formats.find(value.IsString() ? value.As<Napi::String>().Utf8Value() : "");
  if (found == formats.end()) throw_invalid(value.Env(), "a format of blocks is none of GGUF's");
  return found->second;
}

MomentsFormat moments_format_from(const Napi::Value& value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "f32") return MomentsFormat::f32;
  if (name == "bf16") return MomentsFormat::bf16;
  if (name != "8bit") throw_invalid(value.Env(), "moments must be f32, bf16 or 8bit");
  return MomentsFormat::blocks8;
}

// Numbers that lie a whole number of bits above 2^53 or below 0 have no exact key; TypeScript sends none.
std::uint64_t key_from(Napi::Env env, double value, const char* name) {
  if (!(value >= 0 && value <= 9007199254740991.0)) throw_invalid(env, std::string(name) + " is out of range");
  return static_cast<std::uint64_t>(value);
}

void check_sizes(Napi::Env env, const ModelShape& s) {
  const int smallest = std::min(
      {s.vocab_size, s.hidden_size, s.intermediate_size, s.layers, s.heads, s.kv_heads, s.head_dim, s.max_positions});
  if (smallest < 1) throw_invalid(env, "every size of a model must be at least 1");
  if (s.heads % s.kv_heads != 0) throw_invalid(env, "kvHeads must divide heads");
  if (s.head_dim % 2 != 0) throw_invalid(env, "headDim must be even");
  if (s.windows.size() != static_cast<std::size_t>(s.layers)) throw_invalid(env, "windows must have one entry a layer");
  if (s.rotary_frequencies.size() != static_cast<std::size_t>(s.head_dim / 2)) {
    throw_invalid(env, "rotaryFrequencies must have headDim / 2 entries");
  }
}

}  // namespace

ModelShape model_shape_from(const Napi::Value& value) {
  const Napi::Object object = object_from(value, "shape");
  ModelShape shape;
  shape.vocab_size = int_from(object, "vocabSize");
  shape.hidden_size = int_from(object, "hiddenSize");
  shape.intermediate_size = int_from(object, "intermediateSize");
  shape.layers = int_from(object, "layers");
  shape.heads = int_from(object, "heads");
  shape.kv_heads = int_from(object, "kvHeads");
  shape.head_dim = int_from(object, "headDim");
  shape.norm_eps = static_cast<float>(number_from(object, "normEps"));
  shape.tied_head = bool_from(object, "tiedHead");
  shape.qkv_bias = bool_from(object, "qkvBias");
  shape.output_bias = bool_from(object, "outputBias");
  shape.qk_norm = bool_from(object, "qkNorm");
  shape.windows = vector_from<std::int32_t>(object.Get("windows"), "windows");
  shape.rotary_frequencies = vector_from<float>(object.Get("rotaryFrequencies"), "rotaryFrequencies");
  shape.max_positions = int_from(object, "maxPositions");
  check_sizes(value.Env(), shape);
  return shape;
}

EngineOptions engine_options_from(const Napi::Value& value) {
  const Napi::Object object = object_from(value, "options");
  const Napi::Value device = object.Get("device");
  const std::string name = device.IsString() ? device.As<Napi::String>().Utf8Value() : "";
  if (name != "cpu" && name != "cuda") throw_invalid(value.Env(), "device must be cpu or cuda");
  EngineOptions options;
  options.cuda = name == "cuda";
  options.dtype = dtype_from(object.Get("dtype"));
  options.threads = std::max(0, int_from(object, "threads"));
  options.moments = moments_format_from(object.Get("moments"));
  const Napi::Value quantised = object.Get("quantized");
  if (!quantised.IsNull()) {
    if (!quantised.IsString() || quantised.As<Napi::String>().Utf8Value() != "nf4") {
      throw_invalid(value.Env(), "quantized must be null or nf4");
    }
    options.quantised = WeightFormat::nf4;
  }
  const Napi::Value kept = object.Get("kept");
  if (!kept.IsUndefined()) {
    const Napi::Array formats = kept.As<Napi::Array>();
    for (std::uint32_t i = 0; kept.IsArray() && i < formats.Length(); ++i) {
      const Napi::Value name = formats.Get(i);
      if (!name.IsNull()) options.kept.emplace(static_cast<int>(i), gguf_format_from(name));
    }
  }
  return options;
}

Forest forest_from(const Napi::Value& value, std::int32_t vocab_size) {
  const Napi::Env env = value.Env();
  const Napi::Object object = object_from(value, "forest");
  Forest forest;
  forest.tokens = vector_from<std::int32_t>(object.Get("tokens"), "tokens");
  forest.node_start = vector_from<std::int32_t>(object.Get("nodeStart"), "nodeStart");
  forest.node_parent = vector_from<std::int32_t>(object.Get("nodeParent"), "nodeParent");
  forest.node_scored = vector_from<std::uint8_t>(object.Get("nodeScored"), "nodeScored");
  forest.root_adapter = vector_from<std::int32_t>(object.Get("rootAdapter"), "rootAdapter");
  const std::size_t nodes = forest.node_parent.size();
  if (nodes == 0 || forest.node_start.size() != nodes + 1 || forest.node_scored.size() != nodes) {
    throw_invalid(env, "a forest of N > 0 nodes has N + 1 starts and N scored marks");
  }
  if (forest.node_start.front() != 0 || forest.tokens.size() != static_cast<std::size_t>(forest.node_start.back())) {
    throw_invalid(env, "a forest's nodes must cover its tokens");
  }
  for (std::size_t node = 0; node < nodes; ++node) {
    const std::int32_t parent = forest.node_parent[node];
    if (forest.node_start[node] >= forest.node_start[node + 1]) throw_invalid(env, "a forest has an empty node");
    if (parent < -1 || parent >= static_cast<std::int32_t>(node)) throw_invalid(env, "a node's parent must precede it");
  }
  for (const std::int32_t token : forest.tokens) {
    if (token < 0 || token >= vocab_size) throw_invalid(env, "a token lies outside the vocabulary");
  }
  return forest;
}

std::vector<std::int32_t> nodes_from(const Napi::Value& value, const Forest& forest, const char* name) {
  auto nodes = vector_from<std::int32_t>(value, name);
  for (const std::int32_t node : nodes) {
    if (node < 0 || static_cast<std::size_t>(node) >= forest.node_parent.size()) {
      throw_invalid(value.Env(), std::string(name) + " names a node that does not exist");
    }
  }
  return nodes;
}

PreferenceLoss preference_loss_from(const Napi::Value& value) {
  const Napi::Object object = object_from(value, "loss");
  const Napi::Value types = object.Get("types");
  if (!types.IsArray()) throw_invalid(value.Env(), "types is not an array");
  const auto names = types.As<Napi::Array>();
  const auto weights = vector_from<double>(object.Get("weights"), "weights");
  if (names.Length() != weights.size()) throw_invalid(value.Env(), "types and weights differ in length");
  PreferenceLoss loss;
  for (std::uint32_t i = 0; i < names.Length(); ++i) {
    const Napi::Value name = names.Get(i);
    if (!name.IsString()) throw_invalid(value.Env(), "a loss type is not a string");
    try {
      loss.terms.push_back({loss_type_from(name.As<Napi::String>().Utf8Value()), weights[i]});
    } catch (const std::invalid_argument& error) {
      throw_invalid(value.Env(), error.what());
    }
  }
  loss.beta = number_from(object, "beta");
  loss.label_smoothing = number_from(object, "labelSmoothing");
  loss.discopop_tau = number_from(object, "discopopTau");
  return loss;
}

PreferenceSums preference_sums_from(const Napi::Value& value) {
  const Napi::Object object = object_from(value, "sums");
  PreferenceSums sums;
  sums.policy_chosen = vector_from<double>(object.Get("policyChosen"), "policyChosen");
  sums.policy_rejected = vector_from<double>(object.Get("policyRejected"), "policyRejected");
  sums.reference_chosen = vector_from<double>(object.Get("referenceChosen"), "referenceChosen");
  sums.reference_rejected = vector_from<double>(object.Get("referenceRejected"), "referenceRejected");
  sums.chosen_lengths = vector_from<std::int32_t>(object.Get("chosenLengths"), "chosenLengths");
  sums.rejected_lengths = vector_from<std::int32_t>(object.Get("rejectedLengths"), "rejectedLengths");
  const std::size_t pairs = sums.policy_chosen.size();
  for (const std::size_t size :
       {sums.policy_rejected.size(), sums.reference_chosen.size(), sums.reference_rejected.size(),
        sums.chosen_lengths.size(), sums.rejected_lengths.size()}) {
    if (size != pairs) throw_invalid(value.Env(), "the sums of a batch differ in length");
  }
  return sums;
}

PreferenceStep preference_step_from(const Napi::Value& value, std::int32_t vocab_size) {
  const Napi::Object object = object_from(value, "step");
  PreferenceStep step;
  step.forest = forest_from(object.Get("forest"), vocab_size);
  step.pairs = nodes_from(object.Get("pairs"), step.forest, "pairs");
  step.reference = vector_from<double>(object.Get("reference"), "reference");
  if (step.pairs.size() % 2 != 0 || step.reference.size() != step.pairs.size()) {
    throw_invalid(value.Env(), "pairs and reference need two entries a pair");
  }
  step.loss = preference_loss_from(object.Get("loss"));
  step.total_pairs = number_from(object, "totalPairs");
  step.total_chosen_tokens = number_from(object, "totalChosenTokens");
  step.checkpointing = bool_from(object, "checkpointing");
  return step;
}

HostMoments moments_from(const Napi::Value& value) {
  const Napi::Object object = object_from(value, "moments");
  return {vector_from<float>(object.Get("first"), "first"), vector_from<float>(object.Get("second"), "second"),
          vector_from<float>(object.Get("firstScales"), "firstScales"),
          vector_from<float>(object.Get("secondScales"), "secondScales")};
}

Napi::Value moments_to(Napi::Env env, HostMoments& moments) {
  const auto object = Napi::Object::New(env);
  object.Set("first", typed_array_of(env, std::move(moments.first)));
  object.Set("second", typed_array_of(env, std::move(moments.second)));
  object.Set("firstScales", typed_array_of(env, moments.first_scales));
  object.Set("secondScales", typed_array_of(env, moments.second_scales));
  return object;
}

AdapterSpec adapter_spec_from(const Napi::Value& value) {
  const Napi::Object object = object_from(value, "adapter");
  const auto parameters = vector_from<std::int32_t>(object.Get("parameters"), "parameters");
  const auto ranks = vector_from<std::int32_t>(object.Get("ranks"), "ranks");
  const auto scales = vector_from<float>(object.Get("scales"), "scales");
  if (ranks.size() != parameters.size() || scales.size() != parameters.size()) {
    throw_invalid(value.Env(), "parameters, ranks and scales differ in length");
  }
  AdapterSpec spec;
  for (std::size_t i = 0; i < parameters.size(); ++i) spec.modules.push_back({parameters[i], ranks[i], scales[i]});
  spec.dropout = static_cast<float>(number_from(object, "dropout"));
  if (!(spec.dropout >= 0 && spec.dropout < 1)) throw_invalid(value.Env(), "dropout is out of range");
  spec.seed = key_from(value.Env(), number_from(object, "seed"), "seed");
  return spec;
}

OptimizerOptions optimizer_options_from(const Napi::Value& value) {
  const Napi::Object object = object_from(value, "options");
  OptimizerOptions options;
  options.learning_rate = number_from(object, "learningRate");
  options.beta1 = number_from(object, "beta1");
  options.beta2 = number_from(object, "beta2");
  options.epsilon = number_from(object, "epsilon");
  options.weight_decay = number_from(object, "weightDecay");
  options.decay_all = bool_from(object, "decayAll");
  options.max_grad_norm = number_from(object, "maxGradNorm");
  options.seed = key_from(value.Env(), number_from(object, "seed"), "seed");
  return options;
}

namespace {

SamplingOptions sampling_from(const Napi::Object& options) {
  SamplingOptions sampling;
  sampling.temperature = static_cast<float>(number_from(options, "temperature"));
  sampling.top_k = int_from(options, "topK");
  sampling.top_p = static_cast<float>(number_from(options, "topP"));
  return sampling;
}

std::int64_t cache_tokens_from(const Napi::Object& options) {
  const double tokens = number_from(options, "maxCacheTokens");
  if (!(tokens >= 1 && tokens <= 9007199254740991.0)) {
    throw_invalid(options.Env(), "maxCacheTokens is out of range");
  }
  return static_cast<std::int64_t>(tokens);
}

}  // namespace

LiveRequest live_request_from(const Napi::Value& value, std::int32_t vocab_size) {
  const Napi::Env env = value.Env();
  const Napi::Object object = object_from(value, "request");
  LiveRequest request;
  request.number = static_cast<std::int64_t>(key_from(env, number_from(object, "number"), "number"));
  request.prompt = vector_from<std::int32_t>(object.Get("ids"), "ids");
  for (const std::int32_t id : request.prompt) {
    if (id < 0 || id >= vocab_size) throw_invalid(env, "a token id lies outside the vocabulary");
  }
  request.adapter = int_from(object, "adapter");
  request.samples = int_from(object, "samples");
  request.prompt_key = key_from(env, number_from(object, "key"), "key");
  request.seed = key_from(env, number_from(object, "seed"), "seed");
  request.sampling = sampling_from(object);
  request.max_new_tokens = int_from(object, "maxNewTokens");
  request.end_tokens = vector_from<std::int32_t>(object.Get("endTokens"), "endTokens");
  request.likely = int_from(object, "top");
  if (request.samples < 1) throw_invalid(env, "samples must be at least 1");
  if (request.likely < 0 || request.likely > vocab_size) throw_invalid(env, "top is out of range");
  return request;
}

LiveBatchOptions live_batch_options_from(const Napi::Value& value) {
  const Napi::Object object = object_from(value, "options");
  return {int_from(object, "maxRows"), cache_tokens_from(object)};
}

GenerationRequest generation_request_from(const Napi::Value& value, std::int32_t vocab_size) {
  const Napi::Env env = value.Env();
  const Napi::Object object = object_from(value, "request");
  GenerationRequest request;
  request.forest = forest_from(object.Get("forest"), vocab_size);
  request.leaves = nodes_from(object.Get("leaves"), request.forest, "leaves");
  request.samples = vector_from<std::int32_t>(object.Get("samples"), "samples");
  const auto keys = vector_from<double>(object.Get("promptKeys"), "promptKeys");
  const auto seeds = vector_from<double>(object.Get("seeds"), "seeds");
  const std::size_t leaves = request.leaves.size();
  if (request.samples.size() != leaves || keys.size() != leaves || seeds.size() != leaves) {
    throw_invalid(env, "leaves, samples, promptKeys and seeds differ in length");
  }
  for (const std::int32_t samples : request.samples) {
    if (samples < 1) throw_invalid(env, "every leaf needs at least one sample");
  }
  for (const double key : keys) request.prompt_keys.push_back(key_from(env, key, "promptKeys"));
  for (const double seed : seeds) request.seeds.push_back(key_from(env, seed, "seeds"));

  const Napi::Object options = object_from(object.Get("options"), "options");
  request.options.sampling = sampling_from(options);
  request.options.max_new_tokens = int_from(options, "maxNewTokens");
  request.options.end_tokens = vector_from<std::int32_t>(options.Get("endTokens"), "endTokens");
  request.options.max_rows = int_from(options, "maxRows");
  request.options.max_cache_tokens = cache_tokens_from(options);
  return request;
}

Napi::Value log_probs_to(Napi::Env env, const LogProbs& result) {
  const auto object = Napi::Object::New(env);
  object.Set("tokenLogProbs", typed_array_of(env, result.token));
  object.Set("nodeLogProbs", typed_array_of(env, result.node));
  object.Set("topIds", typed_array_of(env, result.likely_ids));
  object.Set("topLogProbs", typed_array_of(env, result.likely_log_probs));
  return object;
}

Napi::Value preference_result_to(Napi::Env env, const PreferenceResult& result) {
  const auto object = Napi::Object::New(env);
  object.Set("loss", result.loss);
  object.Set("pairLosses", typed_array_of(env, result.pair_losses));
  object.Set("logProbs", typed_array_of(env, result.log_probs));
  object.Set("lengths", typed_array_of(env, result.lengths));
  object.Set("tokenLogProbs", typed_array_of(env, result.token_log_probs));
  return object;
}

Napi::Value loss_result_to(Napi::Env env, const LossResult& result) {
  const auto object = Napi::Object::New(env);
  object.Set("pairLosses", typed_array_of(env, result.pair_losses));
  object.Set("dChosen", typed_array_of(env, result.d_chosen));
  object.Set("dRejected", typed_array_of(env, result.d_rejected));
  return object;
}

Napi::Value live_step_to(Napi::Env env, const LiveStep& step) {
  const auto object = Napi::Object::New(env);
  object.Set("requests", typed_array_of(env, step.requests));
  object.Set("samples", typed_array_of(env, step.samples));
  object.Set("tokens", typed_array_of(env, step.tokens));
  object.Set("logProbs", typed_array_of(env, step.log_probs));
  object.Set("finished", typed_array_of(env, step.finished));
  object.Set("topIds", typed_array_of(env, step.likely_ids));
  object.Set("topLogProbs", typed_array_of(env, step.likely_log_probs));
  return object;
}

Napi::Value generation_step_to(Napi::Env env, const GenerationStep& step) {
  const auto object = Napi::Object::New(env);
  object.Set("rows", typed_array_of(env, step.rows));
  object.Set("tokens", typed_array_of(env, step.tokens));
  object.Set("logProbs", typed_array_of(env, step.log_probs));
  object.Set("finished", typed_array_of(env, step.finished));
  object.Set("done", step.done);
  return object;
}

Napi::Value memory_to(Napi::Env env, const MemoryReport& memory) {
  const auto object = Napi::Object::New(env);
  object.Set("weights", static_cast<double>(memory.weights));
  object.Set("gradients", static_cast<double>(memory.gradients));
  object.Set("optimizer", static_cast<double>(memory.optimizer));
  object.Set("workspace", static_cast<double>(memory.workspace));
  object.Set("cache", static_cast<double>(memory.cache));
  object.Set("peak", static_cast<double>(memory.peak));
  return object;
}

}  // namespace tempora::addon
