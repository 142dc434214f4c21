// SPDX-License-Identifier: MIT
#pragma once

// Where the functions that are worth compiling once (kernels and what walks tiles) are defined:
//   by default                   in every translation unit that includes them, as inline functions;
//   with HEADWISE_DECLARE_ONLY   nowhere: they are declared, and headwise::compiled is linked;
//   with HEADWISE_IMPLEMENTATION here, as ordinary functions: in the source files of headwise::compiled (src/), each of
//                                which includes other parts, or in a single file that includes all of headwise.hpp.

#if defined(HEADWISE_DECLARE_ONLY) && defined(HEADWISE_IMPLEMENTATION)
#error "HEADWISE_DECLARE_ONLY and HEADWISE_IMPLEMENTATION exclude each other"
#endif

#if defined(HEADWISE_IMPLEMENTATION)
#define HEADWISE_API
#else
#define HEADWISE_API inline
#endif
