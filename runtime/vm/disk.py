def build(spec, mounts, id):
    raise NotImplementedError
