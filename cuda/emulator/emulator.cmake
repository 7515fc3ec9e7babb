# For tests without a GPU: the same sources under g++, the runtime library replaced by the emulator.
# Needs NVIDIA's headers (LLAMA_STEER_CUDA_TOOLKIT, a folder with include/) and Boost.Context.
find_path(cuda_headers cuda_runtime_api.h HINTS ${LLAMA_STEER_CUDA_TOOLKIT}/include REQUIRED)
find_library(boost_context boost_context REQUIRED)

set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
file(GLOB emulator_sources CONFIGURE_DEPENDS emulator/*.cc)
llama_steer_cuda_plugin(llama_steer_cuda_emulated cuda_emulated ${emulator_sources})
foreach(target llama_steer_cuda_emulated llama_steer_cuda_emulated_kernels)
  target_include_directories(${target} SYSTEM PRIVATE ${cuda_headers})
  target_compile_definitions(${target} PRIVATE LLAMA_STEER_CUDA_EMULATED)
  target_link_libraries(${target} PRIVATE llama_steer_options)
endforeach()
target_link_libraries(llama_steer_cuda_emulated PRIVATE ${boost_context})

# For tests of the emulator itself, which launch kernels of their own.
add_library(llama_steer_emulator STATIC ${emulator_sources})
target_include_directories(llama_steer_emulator PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}
  ${CMAKE_SOURCE_DIR}/addon)
target_include_directories(llama_steer_emulator SYSTEM PUBLIC ${cuda_headers})
target_link_libraries(llama_steer_emulator PUBLIC ${boost_context} PRIVATE llama_steer_options)
