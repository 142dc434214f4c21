// SPDX-License-Identifier: MIT
// Options that say what scores become.
#include <algorithm>
#include <cmath>

#include "tests/fuzz/attention/options.hpp"

namespace headwise::fuzz {

void read_scale(Bytes& bytes, Call& call) {
  const float scale = read_float(bytes) / 8;
  call.options.scale = scale;
  call.parameters.scale = static_cast<double>(scale);
  call.impossible_if(!std::isfinite(scale));
}

void read_softcap(Bytes& bytes, Call& call) {
  float softcap = read_float(bytes);
  if (bytes.byte() < 224) softcap = std::abs(softcap);
  call.options.softcap = softcap;
  call.parameters.softcap = call.softcap = static_cast<double>(softcap);
  call.impossible_if(!std::isfinite(softcap) || softcap < 0);
}

void read_alibi(Bytes& bytes, Call& call) {
  const std::uint8_t count = bytes.byte();
  const Index slopes = count < 224 ? call.num_heads : 1 + count % 8;
  for (Index i = 0; i < slopes; ++i) call.slopes.push_back(read_float(bytes) / 16);
  call.impossible_if(slopes != call.num_heads);
  for (const float slope : call.slopes) call.impossible_if(!std::isfinite(slope));
  double furthest = 0;
  for (const Sequence& s : call.sequences) furthest = std::max(furthest, static_cast<double>(s.keys + s.queries));
  double steepest = 0;
  for (const float slope : call.slopes) steepest = std::max(steepest, std::abs(static_cast<double>(slope)));
  call.added += steepest * furthest;
  call.parameters.alibi_slopes = call.slopes;
}

void read_relative_bias(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  const Index heads = kind < 224 ? call.num_heads : 1 + kind % 8;
  RelativeBiasOptions options;
  options.bidirectional = bytes.flag();
  options.num_buckets = 4 + bytes.between(0, 20) * 2;
  options.max_distance = options.num_buckets + bytes.between(0, 200);
  if (kind % 8 == 7) {  // maybe impossible ones
    options.num_buckets = bytes.wild(0, 64);
    options.max_distance = bytes.wild(0, 255);
    call.unsure_if(true);
  }
  const Index size = options.num_buckets >= 0 && options.num_buckets <= 256 ? heads * options.num_buckets : 1;
  std::vector<float> table(static_cast<std::size_t>(size));
  const float unit = bytes.number() / 64;
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = unit * static_cast<float>(i % 37) - unit;
  call.impossible_if(heads != call.num_heads);
  call.bias.emplace(table, heads, options);
  call.added += 40 * std::abs(static_cast<double>(unit));
  call.parameters.bias = [&bias = *call.bias](Index head, Index distance) {
    return static_cast<double>(bias(head, distance));
  };
}

void read_temperature(Bytes& bytes, Call& call) {
  const Temperature temperature{bytes.wild(1, 64), read_float(bytes) / 16};
  call.options.temperature = temperature;
  call.impossible_if(temperature.floor_scale < 1 || !std::isfinite(temperature.strength));
  if (call.verdict == Verdict::impossible) return;
  const auto strength = static_cast<double>(temperature.strength), floor = static_cast<double>(temperature.floor_scale);
  const auto steps = [floor](Index p) { return std::log(1 + std::floor(static_cast<double>(p + 1) / floor)); };
  call.parameters.temperature = [=](Index p) { return p < 0 ? 1.0 : 1 + strength * steps(p); };
  call.temperature =
      1 + std::abs(strength) * steps(call.most_keys());  // where its terms cancel, this is the error's size
}

void read_sink_logits(Bytes& bytes, Call& call) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::uint8_t count = bytes.byte();
  const Index logits = count < 224 ? call.num_heads : 1 + count % 8;
  for (Index i = 0; i < logits; ++i) call.sink_logits.push_back(count % 8 == 1 ? -kInfinity : read_float(bytes) / 4);
  call.impossible_if(logits != call.num_heads);
  for (const float logit : call.sink_logits) call.impossible_if(!(logit < kInfinity));
}

void read_score_function(Bytes& bytes, Call& call) {
  constexpr float kFactors[] = {1, 0.5f, -1, 0, 1.5f};
  Change change{kFactors[bytes.byte() % std::size(kFactors)], bytes.number() / 16, Pattern(bytes), {}};
  if (change.hides.eighths > 4) change.hides.eighths = 0;
  if (bytes.flag())
    call.options.score_function = call.score_function.emplace<ChangesScore>(change);
  else
    call.options.score_function = call.score_function.emplace<ChangesRow>(change);
  call.at_end.push_back([](Call& whole) {
    std::vector<Index> keys;
    for (Index b = 0; b < whole.num_sequences(); ++b) keys.push_back(whole.keys_of(b));
    if (auto* const one = std::get_if<ChangesScore>(&whole.score_function)) one->change.keys = keys;
    if (auto* const row = std::get_if<ChangesRow>(&whole.score_function)) row->change.keys = keys;
  });
}

}  // namespace headwise::fuzz
