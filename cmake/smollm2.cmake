# SPDX-License-Identifier: MIT
# A real model for the example `generate` and its tests: SmolLM2-135M-Instruct (Apache-2.0), 98 MB, not part of the
# repository. `cmake --build <folder> --target smollm2_model` brings it; tests that need it are skipped without it.
include_guard(GLOBAL)
# Beside the build folders of the presets, so that they share it.
set(HEADWISE_MODEL_DIR ${PROJECT_SOURCE_DIR}/build/models CACHE PATH "Where the target smollm2_model puts the model")
set(HEADWISE_SMOLLM2 ${HEADWISE_MODEL_DIR}/SmolLM2-135M-Instruct.Q4_1.gguf)
add_custom_target(smollm2_model
  COMMAND ${CMAKE_COMMAND} -DMODEL=${HEADWISE_SMOLLM2} -P ${CMAKE_CURRENT_LIST_DIR}/fetch_smollm2.cmake
  VERBATIM USES_TERMINAL)
